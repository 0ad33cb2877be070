// An author's failure as the worker wants it: JSON of kind, message, line and a traceback in the author's own lines.

import { authorsColumn } from "./edits.js";
import { Unhandled } from "./loop.js";

const TRACE_CHARACTERS_MAX = 16384;
const MESSAGE_CHARACTERS_MAX = 2048;
const FRAMES_MAX = 20;
const FRAME = /^\s*at (?:(.*) \()?(?:<input>|\/?agent\.js):(\d+)(?::(\d+))?\)?$/;
const OUT_OF_MEMORY = '{"kind": "memory", "message": "out of memory: the agent used up its memory_bytes"}';

// What people reach for and what this image lacks; what to use instead.
const HINTS = {
  fetch: 'use http.fetch(binding, {method, path}) from "agentfactory" with the grant http',
  XMLHttpRequest: 'use http.fetch(binding, {method, path}) from "agentfactory" with the grant http',
  WebSocket: "there are no sockets here; http.fetch asks, and each invocation ends with its answer",
  require: 'write import { kv, log } from "agentfactory"; other packages are bundled into the file (docs/tutorials/javascript.md)',
  module: "write export function process(text)",
  exports: "write export function process(text)",
  setImmediate: "use setTimeout(callback)",
  performance: "Date.now() counts milliseconds",
  Buffer: "use Uint8Array, atob and btoa",
  TextEncoder: "strings travel as UTF-8 by themselves; for base64 there are atob and btoa",
  TextDecoder: "strings travel as UTF-8 by themselves; for base64 there are atob and btoa",
  URL: "http.fetch takes path and query apart; there are no free URLs",
  structuredClone: "use JSON.parse(JSON.stringify(value))",
  Worker: "there is one thread; agents.invoke runs another agent",
  window: "this is not a browser",
  document: "this is not a browser",
  localStorage: 'use kv from "agentfactory"',
  __dirname: "there are no files here",
};

export function hintFor(message) {
  const name = /^(?:')?([A-Za-z_$][\w$]*)(?:')? is not defined/.exec(message)?.[1];
  const hint = name !== undefined && Object.hasOwn(HINTS, name) ? HINTS[name] : undefined;
  return hint === undefined ? "" : `; the image has no ${name}: ${hint}`;
}

// `columns`: the map of edits.js as JSON.
export function report(failure, source, columns) {
  try {
    return failure instanceof Unhandled
      ? described(failure.reason, source, columns, "unhandled rejection: ")
      : described(failure, source, columns, "");
  } catch {
    return OUT_OF_MEMORY;
  }
}

function described(failure, source, columns, before) {
  const isError = failure instanceof Error;
  if (isError && failure.name === "InternalError" && failure.message === "out of memory") return OUT_OF_MEMORY;
  const frames = isError && typeof failure.stack === "string" ? framesOf(failure.stack, JSON.parse(columns)) : [];
  const told = isError ? `${failure.name}: ${failure.message}${hintFor(failure.message)}` : `thrown: ${shown(failure)}`;
  const message = before + told;
  const isSyntax = isError && failure.name === "SyntaxError" && failure.line === undefined && frames[0]?.name === "";
  const line = isError && Number.isInteger(failure.line) ? failure.line : frames[0]?.line;
  if (frames.length === 0 && line !== undefined) frames.push({ name: "", line, column: undefined });
  const lines = source.split("\n");
  const trace = frames.slice(0, FRAMES_MAX).map((frame) => {
    const place = `agent.js:${frame.line}${frame.column === undefined ? "" : `:${frame.column}`}`;
    const head = frame.name === "" ? `    at ${place}` : `    at ${frame.name} (${place})`;
    const code = lines[frame.line - 1]?.trim();
    return code ? `${head}\n        ${code.slice(0, 200)}` : head;
  });
  return JSON.stringify({
    kind: isSyntax || failure?.line !== undefined ? "syntax" : "error",
    message: message.slice(0, MESSAGE_CHARACTERS_MAX).toWellFormed(),
    line: line ?? null,
    traceback: [message, ...trace].join("\n").slice(0, TRACE_CHARACTERS_MAX).toWellFormed(),
  });
}

function framesOf(stack, map) {
  const frames = [];
  for (const text of stack.split("\n")) {
    const match = FRAME.exec(text);
    if (!match) continue;
    const line = Number(match[2]);
    const column = match[3] && authorsColumn(map, line, Number(match[3]));
    if (match[3] && column === undefined) continue; // a call that stands in the text around an async function
    frames.push({ name: own(match[1]), line, column });
  }
  return frames;
}

// The frame of the file itself has a name of QuickJS's making.
function own(name) {
  return name === undefined || name === "<anonymous>" || name === "<eval>" ? "" : name;
}

function shown(value) {
  try {
    return typeof value === "string" ? value : (JSON.stringify(value) ?? String(value));
  } catch {
    return typeof value;
  }
}
