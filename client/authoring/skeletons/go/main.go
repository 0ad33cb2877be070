// @NAME@ counts words. An agent in Go is a command: Run reads its input from stdin and writes its output to stdout.
package main

import (
	"encoding/json"
	"fmt"
	"strings"

	"agent/agentfactory"
)

type config struct {
	WordsMax int `json:"words_max"`
}

func process(input string) (string, error) {
	chosen := config{WordsMax: 100}
	if err := agentfactory.Config(&chosen); err != nil {
		return "", err
	}
	words := strings.Fields(input)
	if len(words) > chosen.WordsMax {
		words = words[:chosen.WordsMax]
	}
	agentfactory.Log(agentfactory.Info, fmt.Sprintf("counted words=%d", len(words)))
	output, err := json.Marshal(map[string]int{"words": len(words)})
	return string(output), err
}

func main() {
	agentfactory.Run(process)
}
