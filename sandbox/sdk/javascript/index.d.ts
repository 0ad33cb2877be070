/**
 * What an agent's JavaScript may use of the node that runs it.
 *
 * ```js
 * import { config, kv, log } from "agentfactory";
 *
 * export function process(text) {
 *   const words = text.split(/\s+/).filter(Boolean).slice(0, config.words ?? 100);
 *   log.info("counted", { words: words.length });
 *   return { words: words.length };
 * }
 * ```
 *
 * Every call of this module is synchronous: the node suspends the whole instance until the answer is there. `process` may be
 * async all the same: promises, setTimeout and queueMicrotask are there, and what it returns is awaited.
 * What the template was not granted throws `DeniedError`; every refusal is a `HostError`.
 */

/** What `process` gets and may return: text, or a value that is sent as its JSON text. */
export type Process = (text: string) => string | object | PromiseLike<string | object>;

/** The agent's configuration, read only. In a module it can be read while `process` runs, not while the module starts. */
export declare const config: Readonly<Record<string, any>>;

/** This invocation's name, as in its receipt and the node's logs. */
export declare function invocationId(): string;

/** What is left of this invocation's limits; `memory_bytes` is the limit itself. */
export interface Budget {
  readonly fuel: number;
  readonly wall_ms: number;
  readonly memory_bytes: number;
  readonly log_bytes: number;
  readonly host_calls: number;
}
export declare function budget(): Budget;

type Write = (message: unknown, fields?: Record<string, unknown>) => void;

/** Lines for the invocation's log; `console.log` and its relatives go there too. */
export declare const log: { debug: Write; info: Write; warning: Write; error: Write };

export interface Entry {
  readonly value: string;
  /** The version that a compare-and-swap names. */
  readonly version: number;
}

/** The agent's own key-value state (grant `kv`). It survives the call; nothing else does. */
export declare const kv: {
  /** As `expected`: write only if the key does not exist yet. */
  readonly MUST_NOT_EXIST: 0;
  get(key: string): Entry | null;
  /** Stores and returns the new version; throws `ConflictError` when another version than `expected` is there. */
  put(key: string, value: string, options?: { expected?: number }): number;
  /** `put` of an entry that is gone after so many seconds, from 1 on. */
  putFor(key: string, value: string, seconds: number, options?: { expected?: number }): number;
  delete(key: string, options?: { expected?: number }): void;
  /** One page of keys in order; `cursor` continues after them, null means that there are no more. */
  list(prefix?: string, options?: { cursor?: string | null; limit?: number }): { keys: string[]; cursor: string | null };
  /** Every key that begins with `prefix`, page by page. */
  keys(prefix?: string): IterableIterator<string>;
  /** Replaces the value by `change(value)`, again if somebody else wrote meanwhile; `seconds` as in `putFor`. */
  update(key: string, change: (value: string | null) => string, options?: { seconds?: number }): Entry;
};

type Scalar = string | number | boolean;
export interface HttpOptions {
  /** An array repeats its name; null and undefined leave it out. */
  query?: Record<string, Scalar | readonly Scalar[] | null | undefined>;
  headers?: Record<string, string>;
  /** Text is sent as UTF-8. */
  body?: string | Uint8Array;
  /** Sent as JSON, with its content type; instead of `body`. */
  json?: unknown;
}
export interface HttpRequest extends HttpOptions {
  /** By default GET. */
  method?: string;
  /** Percent-encoded; see `http.path`. */
  path: string;
}
export interface HttpAnswer {
  readonly status: number;
  /** Names are lower case. */
  readonly headers: Record<string, string>;
  /** The body when it is UTF-8, else `body_base64` is there. */
  readonly body?: string;
  readonly body_base64?: string;
  /** Whether the status is 2xx. */
  readonly ok: boolean;
  /** The body; throws TypeError when it is not UTF-8. */
  readonly text: string;
  json(): any;
  bytes(): Uint8Array;
  /** This answer, or StatusError for a status of 400 and more. */
  raiseForStatus(): HttpAnswer;
}
/** HTTP by the name of a binding in the grant `http`; there are no free URLs, and redirects are not followed. */
export declare const http: {
  fetch(binding: string, request: HttpRequest): HttpAnswer;
  get(binding: string, path: string, options?: HttpOptions): HttpAnswer;
  head(binding: string, path: string, options?: HttpOptions): HttpAnswer;
  delete(binding: string, path: string, options?: HttpOptions): HttpAnswer;
  post(binding: string, path: string, options?: HttpOptions): HttpAnswer;
  put(binding: string, path: string, options?: HttpOptions): HttpAnswer;
  patch(binding: string, path: string, options?: HttpOptions): HttpAnswer;
  /** The path of these parts, each percent-encoded as a whole. */
  path(...parts: string[]): string;
};

export interface LlmMessage {
  role: string;
  content: string;
}
export interface LlmRequest {
  /** One of the grant's models; by default the first that the node offers. */
  model?: string;
  messages: readonly LlmMessage[];
  max_tokens?: number;
  temperature?: number;
  stop?: string | readonly string[];
  response_format?: object;
  /** Whether an answer may be an earlier one; by default only at temperature 0. */
  cache?: boolean;
}
/** A text is one message of the user. */
export type LlmAsked = string | readonly LlmMessage[] | LlmRequest;
export interface LlmUsage {
  readonly input_tokens: number;
  readonly output_tokens: number;
}
export interface LlmAnswer {
  readonly text: string;
  readonly model: string;
  readonly finish_reason: string;
  readonly usage: LlmUsage;
  readonly cached: boolean;
  /** The text as JSON, for an answer that was asked for with `response_format`. */
  json(): any;
}
export interface LlmPiece {
  readonly delta: string;
  /** These are on the last piece only. */
  readonly finish_reason?: string;
  readonly usage?: LlmUsage;
  readonly model?: string;
  readonly cached?: boolean;
}
/** The pieces of an answer; leaving the loop closes it. */
export interface LlmStream extends Iterable<LlmPiece> {
  /** The whole answer; throws while there are more pieces to come. */
  readonly answer: LlmAnswer;
  /** Says that the rest is not wanted. */
  close(): void;
}
/** A language model by the name of a binding in the grant `llm`. */
export declare const llm: {
  system(content: string): LlmMessage;
  user(content: string): LlmMessage;
  assistant(content: string): LlmMessage;
  complete(binding: string, asked: LlmAsked): LlmAnswer;
  stream(binding: string, asked: LlmAsked): LlmStream;
};

/** Other agents (grant `agents`), inside this invocation's remaining budget. */
export declare const agents: { invoke(template: string, input: string | object): string };

export type ErrorKind = "denied" | "conflict" | "quota" | "not_found" | "invalid" | "failed" | "budget";

/** Base of every refusal; `kind` is the stable word, the message is for people. */
export declare class HostError extends Error {
  constructor(message: string, kind?: ErrorKind);
  readonly kind: ErrorKind;
}
/** The template was not granted this interface, or the grant does not reach that far. */
export declare class DeniedError extends HostError {}
/** The stored version is not the `expected` one: read again and decide again. */
export declare class ConflictError extends HostError {}
/** The grant's amount is used up. */
export declare class QuotaError extends HostError {}
/** The template or key does not exist, or is not for this agent to see. */
export declare class NotFoundError extends HostError {}
/** The argument is not one that this call takes. */
export declare class InvalidError extends HostError {}
/** The call was carried out and failed. */
export declare class FailedError extends HostError {}
/** What remains of this invocation's fuel, time or calls does not suffice. */
export declare class BudgetError extends HostError {}
/** `raiseForStatus` found a status of 400 or more. */
export declare class StatusError extends HostError {
  readonly response: HttpAnswer;
}

declare global {
  /** Goes to the invocation's log. */
  const console: Record<"debug" | "info" | "log" | "warn" | "error", (...values: unknown[]) => void>;
  /** Randomness that the host chooses. */
  function setTimeout<A extends unknown[]>(callback: (...args: A) => void, ms?: number, ...args: A): number;
  function setInterval<A extends unknown[]>(callback: (...args: A) => void, ms?: number, ...args: A): number;
  function clearTimeout(id: number | undefined): void;
  function clearInterval(id: number | undefined): void;
  function queueMicrotask(callback: () => void): void;
  const crypto: { getRandomValues<T extends ArrayBufferView>(array: T): T; randomUUID(): string };
}
