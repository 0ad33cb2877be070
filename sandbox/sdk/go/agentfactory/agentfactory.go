// Package agentfactory is what an agent in Go may use of the node that runs it.
//
//	func main() {
//		agentfactory.Run(func(input string) (string, error) {
//			agentfactory.Log(agentfactory.Info, "started")
//			return strings.ToUpper(input), nil
//		})
//	}
//
// An agent is a WASI preview 1 command (GOOS=wasip1 GOARCH=wasm): its input is stdin, its output stdout, its log stderr.
// Calls suspend the whole instance; goroutines run, one at a time.
package agentfactory

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"
)

// Level of a log line.
type Level string

const (
	Debug   Level = "debug"
	Info    Level = "info"
	Warning Level = "warning"
	Failure Level = "error"
)

// HostError says why the node refused or could not do what was asked. Kind is the stable word.
type HostError struct {
	Kind    string `json:"kind"`
	Message string `json:"message"`
}

func (e *HostError) Error() string { return e.Kind + ": " + e.Message }

// Is lets errors.Is compare kinds: errors.Is(err, agentfactory.Conflict).
func (e *HostError) Is(target error) bool {
	other, ok := target.(*HostError)
	return ok && other.Kind == e.Kind
}

var (
	Denied   = &HostError{Kind: "denied"}
	Conflict = &HostError{Kind: "conflict"}
	Quota    = &HostError{Kind: "quota"}
	NotFound = &HostError{Kind: "not_found"}
	Invalid  = &HostError{Kind: "invalid"}
	Failed   = &HostError{Kind: "failed"}
	Spent    = &HostError{Kind: "budget"}
)

// Ask makes any call by its name ("kv.get"). The argument is sent as JSON; what it answered is read into result.
func Ask(op string, argument, result any) error {
	request, err := json.Marshal(argument)
	if err != nil {
		return err
	}
	var answer struct {
		Ok    json.RawMessage `json:"ok"`
		Error *HostError      `json:"error"`
	}
	if err := json.Unmarshal(callHost(op, request), &answer); err != nil {
		return fmt.Errorf("the node's answer cannot be read: %w", err)
	}
	if answer.Error != nil {
		return answer.Error
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(answer.Ok, result)
}

// Log writes one line to the invocation's log. What is written to stderr goes there too, as info.
func Log(level Level, message string) {
	_ = Ask("log.log", map[string]any{"level": level, "message": message}, nil)
}

// Config reads the agent's configuration into value.
func Config(value any) error {
	text, found := os.LookupEnv("AGENTFACTORY_CONFIG")
	if !found {
		text = "{}"
	}
	return json.Unmarshal([]byte(text), value)
}

// InvocationID is this invocation's name, as in its receipt and the node's logs.
func InvocationID() (name string, err error) {
	err = Ask("context.invocation_id", struct{}{}, &name)
	return name, err
}

// Budget is what is left of this invocation's limits; MemoryBytes is the limit itself.
type Budget struct {
	Fuel        uint64 `json:"fuel"`
	WallMs      uint64 `json:"wall_ms"`
	MemoryBytes uint64 `json:"memory_bytes"`
	LogBytes    uint64 `json:"log_bytes"`
	HostCalls   uint64 `json:"host_calls"`
}

// Left asks what is left now.
func Left() (left Budget, err error) {
	err = Ask("context.budget", struct{}{}, &left)
	return left, err
}

// Entry is a stored value and the version that a compare-and-swap names.
type Entry struct {
	Value   string `json:"value"`
	Version uint64 `json:"version"`
}

// Page is some keys in order; Cursor continues after them, nil means that there are no more.
type Page struct {
	Keys   []string `json:"keys"`
	Cursor *string  `json:"cursor"`
}

// MustNotExist as expected version: write only if the key does not exist yet.
const MustNotExist uint64 = 0

// KVGet returns the stored entry, nil when there is none (grant kv).
func KVGet(key string) (entry *Entry, err error) {
	err = Ask("kv.get", map[string]any{"key": key}, &entry)
	return entry, err
}

// KVPut stores and returns the new version. Without expected, whatever is there is replaced.
func KVPut(key, value string, expected ...uint64) (uint64, error) {
	argument := map[string]any{"key": key, "value": value}
	if len(expected) > 0 {
		argument["expected"] = expected[0]
	}
	var done Entry
	err := Ask("kv.put", argument, &done)
	return done.Version, err
}

// KVPutFor is KVPut of an entry that is gone after so many seconds, from 1 on.
func KVPutFor(key, value string, seconds uint64, expected ...uint64) (uint64, error) {
	argument := map[string]any{"key": key, "value": value, "ttl_s": seconds}
	if len(expected) > 0 {
		argument["expected"] = expected[0]
	}
	var done Entry
	err := Ask("kv.put", argument, &done)
	return done.Version, err
}

// KVDelete removes an entry. Without expected, a key that is not there is not an error.
func KVDelete(key string, expected ...uint64) error {
	argument := map[string]any{"key": key}
	if len(expected) > 0 {
		argument["expected"] = expected[0]
	}
	return Ask("kv.delete", argument, nil)
}

// KVList returns one page of keys that begin with prefix.
func KVList(prefix string, cursor *string, limit uint32) (page Page, err error) {
	err = Ask("kv.list", map[string]any{"prefix": prefix, "cursor": cursor, "limit": limit}, &page)
	return page, err
}

// KVUpdate replaces the value by change(value), again if somebody else wrote meanwhile.
func KVUpdate(key string, change func(value string, exists bool) string) (Entry, error) {
	for attempt := 0; ; attempt++ {
		entry, err := KVGet(key)
		if err != nil {
			return Entry{}, err
		}
		old := Entry{Version: MustNotExist}
		if entry != nil {
			old = *entry
		}
		value := change(old.Value, entry != nil)
		version, err := KVPut(key, value, old.Version)
		if err == nil {
			return Entry{Value: value, Version: version}, nil
		}
		if !errors.Is(err, Conflict) || attempt == 15 {
			return Entry{}, err
		}
	}
}

// Invoke runs another agent inside this invocation's remaining budget (grant agents).
func Invoke(template, input string) (string, error) {
	var done struct {
		Output string `json:"output"`
	}
	err := Ask("agents.invoke", map[string]any{"template": template, "input": input}, &done)
	return done.Output, err
}

// Request is one HTTP request by a binding of the grant http; there are no free URLs.
type Request struct {
	Method     string              `json:"method,omitempty"`
	Path       string              `json:"path"`
	Query      map[string][]string `json:"query,omitempty"`
	Headers    map[string]string   `json:"headers,omitempty"`
	Body       string              `json:"body,omitempty"`
	BodyBase64 []byte              `json:"body_base64,omitempty"`
}

// Response is its answer: Body when it is UTF-8, else BodyBase64, decoded.
type Response struct {
	Status     int               `json:"status"`
	Headers    map[string]string `json:"headers"`
	Body       string            `json:"body"`
	BodyBase64 []byte            `json:"body_base64"`
}

// Fetch carries one request out.
func Fetch(binding string, request Request) (response Response, err error) {
	err = askDocument("http.fetch", binding, request, &response)
	return response, err
}

// Message is one message of a conversation with a language model.
type Message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

// CompletionRequest is what a language model is asked.
type CompletionRequest struct {
	Model          string         `json:"model,omitempty"`
	Messages       []Message      `json:"messages"`
	MaxTokens      int            `json:"max_tokens,omitempty"`
	Temperature    *float64       `json:"temperature,omitempty"`
	Stop           []string       `json:"stop,omitempty"`
	ResponseFormat map[string]any `json:"response_format,omitempty"`
	Cache          *bool          `json:"cache,omitempty"`
}

// Completion is what it answered.
type Completion struct {
	Text         string `json:"text"`
	Model        string `json:"model"`
	FinishReason string `json:"finish_reason"`
	Usage        struct {
		InputTokens  int `json:"input_tokens"`
		OutputTokens int `json:"output_tokens"`
	} `json:"usage"`
	Cached bool `json:"cached"`
}

// Complete asks a language model by a binding of the grant llm.
func Complete(binding string, request CompletionRequest) (completion Completion, err error) {
	err = askDocument("llm.complete", binding, request, &completion)
	return completion, err
}

// Stream is an answer in pieces: for piece, err := range stream.Pieces() { … }. Completion is whole after the last.
type Stream struct {
	Completion Completion
	number     uint64
	text       strings.Builder
}

// OpenStream asks a language model for an answer in pieces.
func OpenStream(binding string, request CompletionRequest) (*Stream, error) {
	text, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	stream := &Stream{}
	err = Ask("llm.open", map[string]any{"binding": binding, "request": string(text)}, &stream.number)
	return stream, err
}

// Pieces gives the text as it comes. Leaving the loop closes the stream; an error is the last that comes.
func (s *Stream) Pieces() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		defer func() { _ = Ask("llm.close", map[string]any{"number": s.number}, nil) }()
		for {
			var piece *struct {
				Delta string `json:"delta"`
				Completion
			}
			if err := Ask("llm.next", map[string]any{"number": s.number}, &piece); err != nil {
				yield("", err)
				return
			}
			if piece == nil {
				return
			}
			s.text.WriteString(piece.Delta)
			if piece.FinishReason != "" {
				s.Completion = piece.Completion
				s.Completion.Text = s.text.String()
			}
			if piece.Delta != "" && !yield(piece.Delta, nil) {
				return
			}
		}
	}
}

// askDocument sends a request as the JSON text that it is; the answer may be a text of JSON too.
func askDocument(op, binding string, request, result any) error {
	text, err := json.Marshal(request)
	if err != nil {
		return err
	}
	var answer json.RawMessage
	if err := Ask(op, map[string]any{"binding": binding, "request": string(text)}, &answer); err != nil {
		return err
	}
	var inner string
	if json.Unmarshal(answer, &inner) == nil {
		answer = json.RawMessage(inner)
	}
	return json.Unmarshal(answer, result)
}

// Run reads the input, processes it and writes the output. An error ends the invocation; it stands in the log.
func Run(process func(input string) (string, error)) {
	input, err := io.ReadAll(os.Stdin)
	if err == nil {
		var output string
		if output, err = process(string(input)); err == nil {
			_, err = os.Stdout.WriteString(output)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
