// Asks everything that the grants of its template open; what it returns is compared in test_sdk_outside.py.
package main

import (
	"encoding/json"
	"errors"

	"agent/agentfactory"
)

func kind(err error) string {
	var refusal *agentfactory.HostError
	if errors.As(err, &refusal) {
		return refusal.Kind
	}
	return "done"
}

func user(content string) []agentfactory.Message {
	return []agentfactory.Message{{Role: "user", Content: content}}
}

func process(input string) (string, error) {
	body, err := json.Marshal(map[string]string{"about": input})
	if err != nil {
		return "", err
	}
	posted, err := agentfactory.Fetch("api", agentfactory.Request{
		Method: "POST", Path: "/v1/works", Query: map[string][]string{"about": {input}}, Body: string(body),
	})
	if err != nil {
		return "", err
	}
	missing, err := agentfactory.Fetch("api", agentfactory.Request{Method: "GET", Path: "/v1/missing"})
	if err != nil {
		return "", err
	}
	complete, err := agentfactory.Complete("default", agentfactory.CompletionRequest{Messages: user("about " + input)})
	if err != nil {
		return "", err
	}
	stream, err := agentfactory.OpenStream("default", agentfactory.CompletionRequest{Messages: user("one two three")})
	if err != nil {
		return "", err
	}
	pieces, text := 0, ""
	for piece, err := range stream.Pieces() {
		if err != nil {
			return "", err
		}
		pieces++
		text += piece
	}
	_, refused := agentfactory.Complete("default", agentfactory.CompletionRequest{Model: "forbidden", Messages: user("x")})
	_, denied := agentfactory.Fetch("api", agentfactory.Request{Method: "GET", Path: "/v2"})
	if _, err := agentfactory.KVPutFor("kept", input, 60); err != nil {
		return "", err
	}
	kept, err := agentfactory.KVGet("kept")
	if err != nil {
		return "", err
	}
	_, conflict := agentfactory.KVPutFor("kept", "x", 1, agentfactory.MustNotExist)
	answer, err := json.Marshal(map[string]any{
		"posted": json.RawMessage(posted.Body), "missing": missing.Status, "complete": complete.Text,
		"tokens": complete.Usage.OutputTokens, "pieces": pieces > 0 && text == stream.Completion.Text,
		"stream": stream.Completion.Text, "finish": stream.Completion.FinishReason, "refused": kind(refused),
		"denied": kind(denied), "kept": kept.Value, "conflict": kind(conflict),
	})
	return string(answer), err
}

func main() {
	agentfactory.Run(process)
}
