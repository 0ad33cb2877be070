// What an agent's JavaScript may use of the node that runs it. Types and documentation: index.d.ts.
//
// Every host call is synchronous for the agent: the node suspends the whole instance until the answer is there.

import { host } from "./host.js";

export class HostError extends Error {
  constructor(message, kind = "failed") {
    super(message);
    this.kind = kind;
  }
}
HostError.prototype.name = "HostError";

function errorClass(name, kind) {
  const made = class extends HostError {
    constructor(message) {
      super(message, kind);
    }
  };
  Object.defineProperty(made, "name", { value: name });
  made.prototype.name = name;
  return made;
}

export const DeniedError = errorClass("DeniedError", "denied");
export const ConflictError = errorClass("ConflictError", "conflict");
export const QuotaError = errorClass("QuotaError", "quota");
export const NotFoundError = errorClass("NotFoundError", "not_found");
export const InvalidError = errorClass("InvalidError", "invalid");
export const FailedError = errorClass("FailedError", "failed");
export const BudgetError = errorClass("BudgetError", "budget");

const CLASSES = {
  denied: DeniedError,
  conflict: ConflictError,
  quota: QuotaError,
  not_found: NotFoundError,
  invalid: InvalidError,
  failed: FailedError,
  budget: BudgetError,
};

// Calls the node; its typed error becomes one of the classes above.
function ask(name, method, ...args) {
  const found = host()[name];
  if (found === undefined) {
    throw new DeniedError(`expected a grant for ${name}, got none`);
  }
  try {
    return found[method](...args);
  } catch (failure) {
    const refusal = failure?.payload; // the interface's error record, as the bindings hand it over
    if (typeof refusal?.kind !== "string") throw failure;
    throw new (CLASSES[refusal.kind.replace("-", "_")] ?? FailedError)(refusal.message);
  }
}

function text(value, what) {
  if (typeof value !== "string") throw new TypeError(`expected ${what} to be text, got ${typeof value}`);
  return value.toWellFormed();
}

function number(value, what) {
  if (value === undefined || value === null) return null;
  if (!Number.isSafeInteger(value) || value < 0) throw new TypeError(`expected ${what} to be a whole number, got ${value}`);
  return value;
}

function json(value) {
  return typeof value === "string" ? text(value, "the input") : JSON.stringify(value).toWellFormed();
}

// --- configuration and what is left

let settings;

function readSettings() {
  settings ??= JSON.parse(host().context.config());
  return settings;
}

// Read when it is first looked at, because a module is started while it is built, before there is a configuration.
export const config = new Proxy(
  {},
  {
    get: (_target, name) => readSettings()[name],
    has: (_target, name) => name in readSettings(),
    ownKeys: () => Reflect.ownKeys(readSettings()),
    getOwnPropertyDescriptor: (_target, name) => {
      const value = readSettings()[name];
      return value === undefined ? undefined : { value, enumerable: true, configurable: true, writable: false };
    },
    set: (_target, name) => {
      throw new TypeError(`the configuration cannot be changed here: ${String(name)}`);
    },
  },
);

export function invocationId() {
  return host().context.invocationId();
}

export function budget() {
  return JSON.parse(host().context.budget());
}

// --- log

function field(value) {
  if (typeof value === "string" && /^[\p{L}_$][\p{L}\p{N}_$]*$/u.test(value)) return value;
  return JSON.stringify(value) ?? String(value);
}

function write(level, message, fields) {
  let line = String(message);
  for (const [name, value] of Object.entries(fields ?? {})) line += ` ${name}=${field(value)}`;
  host().log.log(level, line.toWellFormed());
}

export const log = {
  debug: (message, fields) => write("debug", message, fields),
  info: (message, fields) => write("info", message, fields),
  warning: (message, fields) => write("warning", message, fields),
  error: (message, fields) => write("error", message, fields),
};

// --- key-value state

const UPDATE_ATTEMPTS_MAX = 16;

function* keys(prefix = "") {
  let cursor = null;
  do {
    const page = kv.list(prefix, { cursor });
    yield* page.keys;
    cursor = page.cursor;
  } while (cursor !== null);
}

function update(key, change, { seconds } = {}) {
  for (let attempt = 1; ; attempt += 1) {
    const entry = kv.get(key);
    const value = change(entry === null ? null : entry.value);
    try {
      const expected = entry === null ? kv.MUST_NOT_EXIST : entry.version;
      const version = seconds === undefined ? kv.put(key, value, { expected }) : kv.putFor(key, value, seconds, { expected });
      return { value, version };
    } catch (failure) {
      if (!(failure instanceof ConflictError) || attempt === UPDATE_ATTEMPTS_MAX) throw failure;
    }
  }
}

export const kv = {
  MUST_NOT_EXIST: 0,
  get: (key) => ask("kv", "get", text(key, "the key")) ?? null,
  put: (key, value, { expected } = {}) =>
    ask("kv", "put", text(key, "the key"), text(value, "the value"), number(expected, "expected")),
  putFor: (key, value, seconds, { expected } = {}) => {
    if (!Number.isSafeInteger(seconds) || seconds < 1) throw new TypeError(`expected seconds from 1 on, got ${seconds}`);
    return ask("kv", "putFor", text(key, "the key"), text(value, "the value"), number(expected, "expected"), seconds);
  },
  delete: (key, { expected } = {}) => {
    ask("kv", "delete", text(key, "the key"), number(expected, "expected"));
  },
  list: (prefix = "", { cursor = null, limit = 100 } = {}) => {
    const page = ask("kv", "list", text(prefix, "the prefix"), cursor, number(limit, "limit"));
    return { keys: page.keys, cursor: page.cursor ?? null };
  },
  keys,
  update,
};

// --- other agents, HTTP, language models

export const agents = {
  invoke: (template, input) => ask("agents", "invoke", text(template, "the template"), json(input)),
};

export class StatusError extends HostError {
  constructor(message, response) {
    super(message, "failed");
    this.response = response;
  }
}
StatusError.prototype.name = "StatusError";

class HttpAnswer {
  constructor(binding, answer) {
    Object.assign(this, answer);
    Object.defineProperty(this, "binding", { value: binding });
  }

  get ok() {
    return this.status >= 200 && this.status < 300;
  }

  get text() {
    if (this.body === undefined) throw new TypeError("expected a body of UTF-8 text, got other bytes: see bytes()");
    return this.body;
  }

  json() {
    return JSON.parse(this.text);
  }

  bytes() {
    const binary = this.body === undefined ? atob(this.body_base64) : unescape(encodeURIComponent(this.body));
    return Uint8Array.from(binary, (character) => character.charCodeAt(0));
  }

  raiseForStatus() {
    if (this.status < 400) return this;
    throw new StatusError(`expected a status below 400 from ${this.binding}, got ${this.status}`, this);
  }
}

function queryOf(query) {
  const given = Object.entries(query).filter(([, value]) => value !== null && value !== undefined);
  return Object.fromEntries(given.map(([name, value]) => [name, Array.isArray(value) ? value.map(String) : String(value)]));
}

function base64(bytes) {
  let binary = "";
  for (const byte of bytes) binary += String.fromCharCode(byte);
  return btoa(binary);
}

function fetch(binding, { json: document, body, query, headers, ...request }) {
  if (document !== undefined && body !== undefined) throw new TypeError("expected body or json, got both");
  const sent = { method: "GET", ...request };
  if (query !== undefined) sent.query = queryOf(query);
  if (headers !== undefined) sent.headers = headers;
  if (document !== undefined) {
    sent.body = JSON.stringify(document).toWellFormed();
    const isTyped = Object.keys(headers ?? {}).some((name) => name.toLowerCase() === "content-type");
    if (!isTyped) sent.headers = { ...headers, "content-type": "application/json" };
  } else if (body instanceof Uint8Array) sent.body_base64 = base64(body);
  else if (body !== undefined) sent.body = text(body, "the body");
  return new HttpAnswer(binding, JSON.parse(ask("http", "fetch", text(binding, "the binding"), JSON.stringify(sent))));
}

const by = (method) => (binding, path, options) => fetch(binding, { ...options, method, path });

export const http = {
  fetch,
  get: by("GET"),
  head: by("HEAD"),
  delete: by("DELETE"),
  post: by("POST"),
  put: by("PUT"),
  patch: by("PATCH"),
  path: (...parts) => `/${parts.map((part) => encodeURIComponent(part)).join("/")}`,
};

const message = (role) => (content) => ({ role, content: text(content, "the message") });

// A text, or messages, are asked as they stand; an object says more.
function asked(request) {
  if (typeof request === "string") return JSON.stringify({ messages: [llm.user(request)] });
  return JSON.stringify(Array.isArray(request) ? { messages: request } : request).toWellFormed();
}

class LlmAnswer {
  constructor(answer) {
    Object.assign(this, answer);
  }

  json() {
    return JSON.parse(this.text);
  }
}

class LlmStream {
  #number;
  #text = "";
  #answer;
  #isOpen = true;

  constructor(number) {
    this.#number = number;
  }

  get answer() {
    if (this.#answer === undefined) throw new Error("expected every piece to have been read before the whole answer is asked for");
    return this.#answer;
  }

  *[Symbol.iterator]() {
    try {
      while (this.#isOpen) {
        const piece = JSON.parse(ask("llm", "next", this.#number) ?? "null");
        if (piece === null) return;
        const { delta, ...rest } = piece;
        if (delta) this.#text += delta;
        if (rest.finish_reason !== undefined) this.#answer = new LlmAnswer({ text: this.#text, ...rest });
        if (delta || this.#answer) yield piece;
      }
    } finally {
      this.close();
    }
  }

  close() {
    if (!this.#isOpen) return;
    this.#isOpen = false;
    ask("llm", "close", this.#number);
  }
}

export const llm = {
  system: message("system"),
  user: message("user"),
  assistant: message("assistant"),
  complete: (binding, request) =>
    new LlmAnswer(JSON.parse(ask("llm", "complete", text(binding, "the binding"), asked(request)))),
  stream: (binding, request) => new LlmStream(ask("llm", "open", text(binding, "the binding"), asked(request))),
};

export default {
  BudgetError, ConflictError, DeniedError, FailedError, HostError, InvalidError, NotFoundError, QuotaError, StatusError,
  agents, budget, config, http, invocationId, kv, llm, log,
};
