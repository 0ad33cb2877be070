package agentfactory

import "unsafe"

//go:wasmimport agentfactory call
func importedCall(op unsafe.Pointer, opLen uint32, request unsafe.Pointer, requestLen uint32, response unsafe.Pointer, responseCap uint32) int32

func callHost(op string, request []byte) []byte {
	answer := make([]byte, 4096)
	length := int(importedCall(
		unsafe.Pointer(unsafe.StringData(op)), uint32(len(op)),
		unsafe.Pointer(unsafe.SliceData(request)), uint32(len(request)),
		unsafe.Pointer(unsafe.SliceData(answer)), uint32(len(answer))))
	if length > len(answer) { // an empty op writes the last answer again, and repeats nothing
		answer = make([]byte, length)
		importedCall(unsafe.Pointer(unsafe.StringData(op)), 0, unsafe.Pointer(unsafe.SliceData(request)), 0,
			unsafe.Pointer(unsafe.SliceData(answer)), uint32(len(answer)))
	}
	return answer[:length]
}
