//go:build !wasip1

package agentfactory

// In ordinary Go there is no node: tests of an agent's logic call its functions directly.
func callHost(string, []byte) []byte {
	return []byte(`{"error":{"kind":"failed","message":"expected to run in a sandbox, got plain Go"}}`)
}
