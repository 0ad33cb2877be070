// Asks everything that the grants of its template open; what it returns is compared in test_sdk_outside.py.

import { HostError, StatusError, http, kv, llm } from "agentfactory";

function kindOf(call) {
  try {
    call();
  } catch (failure) {
    if (failure instanceof HostError) return failure.kind;
    throw failure;
  }
  return "done";
}

function statusOf(call) {
  try {
    return call().raiseForStatus().status;
  } catch (failure) {
    if (failure instanceof StatusError) return failure.response.status;
    throw failure;
  }
}

export async function process(text) {
  const posted = http.post("api", http.path("v1", "works"), { query: { about: text, left: null }, json: { about: text } });
  const complete = llm.complete("default", `about ${text}`);
  const stream = llm.stream("default", [llm.user("one two three")]);
  const pieces = [];
  for (const { delta } of stream) pieces.push(delta);
  for (const piece of llm.stream("default", { messages: [llm.user("left after the first piece")] })) {
    if (piece.delta) break;
  }
  kv.putFor("kept", text, 60);
  await null;
  return {
    posted: posted.json(),
    missing: statusOf(() => http.get("api", "/v1/missing")),
    complete: complete.text,
    tokens: complete.usage.output_tokens,
    pieces: pieces.length > 0 && pieces.join("") === stream.answer.text,
    stream: stream.answer.text,
    finish: stream.answer.finish_reason,
    refused: kindOf(() => llm.complete("default", { model: "forbidden", messages: [llm.user("x")] })),
    denied: kindOf(() => http.get("api", "/v2")),
    kept: kv.update("kept", (value) => value, { seconds: 30 }).value,
    conflict: kindOf(() => kv.putFor("kept", "x", 1, { expected: kv.MUST_NOT_EXIST })),
  };
}
