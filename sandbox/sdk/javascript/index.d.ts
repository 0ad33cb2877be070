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
 * Every call is synchronous: the node suspends the whole instance until the answer is there, so there is nothing to await.
 * What the template was not granted throws `DeniedError`; every refusal is a `HostError`.
 */

/** What `process` gets and may return: text, or a value that is sent as its JSON text. */
export type Process = (text: string) => string | object;

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
  delete(key: string, options?: { expected?: number }): void;
  /** One page of keys in order; `cursor` continues after them, null means that there are no more. */
  list(prefix?: string, options?: { cursor?: string | null; limit?: number }): { keys: string[]; cursor: string | null };
  /** Every key that begins with `prefix`, page by page. */
  keys(prefix?: string): IterableIterator<string>;
  /** Replaces the value by `change(value)`, again if somebody else wrote meanwhile. */
  update(key: string, change: (value: string | null) => string): Entry;
};

export interface HttpRequest {
  method?: string;
  path: string;
  query?: Record<string, string | string[]>;
  headers?: Record<string, string>;
  body?: string;
  body_base64?: string;
}
export interface HttpAnswer {
  readonly status: number;
  readonly headers: Record<string, string>;
  /** The body when it is UTF-8, else `body_base64` is there. */
  readonly body?: string;
  readonly body_base64?: string;
  json(): any;
}
/** HTTP by the name of a binding in the grant `http`; there are no free URLs. */
export declare const http: { fetch(binding: string, request: HttpRequest): HttpAnswer };

export interface LlmRequest {
  model?: string;
  messages: { role: string; content: string }[];
  max_tokens?: number;
  temperature?: number;
  stop?: string | string[];
  response_format?: object;
}
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
}
export interface LlmPiece {
  readonly delta: string;
  /** On the last piece only. */
  readonly finish_reason?: string;
  readonly usage?: LlmUsage;
}
/** A language model by the name of a binding in the grant `llm`. */
export declare const llm: {
  complete(binding: string, request: LlmRequest): LlmAnswer;
  stream(binding: string, request: LlmRequest): IterableIterator<LlmPiece>;
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

declare global {
  /** Goes to the invocation's log. */
  const console: Record<"debug" | "info" | "log" | "warn" | "error", (...values: unknown[]) => void>;
  /** Randomness that the host chooses. */
  const crypto: { getRandomValues<T extends ArrayBufferView>(array: T): T; randomUUID(): string };
}
