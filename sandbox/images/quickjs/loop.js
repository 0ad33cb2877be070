// The event loop inside one call of process(): promises, microtasks, timers, and what becomes of errors that nobody sees.
//
// QuickJS runs jobs when its embedder says so, and componentize-qjs says so only at the end of an export that is async. Our
// world has one, runJobs; sandbox/images/flatten.py ties the import jobs.run to it, so that asking runs every job there is
// and returns (ADR 16). The argument must be empty, since the callee frees it.

import clock from "wasi:clocks/monotonic-clock@0.2.12";
import jobs from "agentfactory:runtime/jobs@0.1.0";

const MS = 1_000_000; // in ns
const DELAY_MS_MAX = 2_147_483_647; // what browsers and Node keep a delay in
const PLACES_MAX = 8;

export class Unhandled {
  constructor(reason) {
    this.reason = reason;
  }
}

// Never settles: whoever called it wants the jobs that are run on the way out.
export function runJobs() {
  return { then() {} };
}

// --- promises that nobody looks at

const NativePromise = Promise;
const nativeThen = Promise.prototype.then;
const done = Promise.resolve();

const watched = new WeakSet();
const handled = new WeakSet();
const waiting = new Map(); // the promise of an async function → where that function stands
const rejected = new Map(); // a promise that nobody has looked at → its reason
const thrown = []; // by callbacks whose caller is gone
let looking = false; // at a promise ourselves

function react(promise, onFulfilled, onRejected) {
  looking = true;
  try {
    nativeThen.call(promise, onFulfilled, onRejected);
  } finally {
    looking = false;
  }
}

// A promise whose rejection somebody must look at; `place` is that of the async function that it is the result of.
export function watch(promise, place) {
  if (Object.getPrototypeOf(promise) !== NativePromise.prototype) return promise;
  watched.add(promise);
  if (place !== undefined) waiting.set(promise, place);
  react(
    promise,
    () => waiting.delete(promise),
    (reason) => {
      waiting.delete(promise);
      if (!handled.has(promise)) rejected.set(promise, reason);
    },
  );
  return promise;
}

// Whoever awaits a promise, chains to it or resolves another with it reads its constructor first (ECMA-262, PromiseResolve
// and SpeciesConstructor). That is the one sign of it that a script can see.
Object.defineProperty(NativePromise.prototype, "constructor", {
  configurable: true,
  get() {
    if (!looking && watched.has(this)) {
      handled.add(this);
      rejected.delete(this);
    }
    return NativePromise;
  },
  set(value) {
    Object.defineProperty(this, "constructor", { value, writable: true, enumerable: true, configurable: true });
  },
});

NativePromise.prototype.then = function then(onFulfilled, onRejected) {
  return watch(nativeThen.call(this, onFulfilled, onRejected));
};

const WatchedPromise = new Proxy(NativePromise, {
  construct: (target, args, made) => watch(Reflect.construct(target, args, made)),
});
globalThis.Promise = WatchedPromise;

const nativeResolve = NativePromise.resolve;
NativePromise.resolve = function resolve(value) {
  const made = nativeResolve.call(this === WatchedPromise ? NativePromise : this, value);
  return made === value ? made : watch(made);
};

// --- callbacks

function callable(callback, name) {
  if (typeof callback !== "function") throw new TypeError(`expected ${name} to be given a function, got ${typeof callback}`);
  return callback;
}

globalThis.queueMicrotask = function queueMicrotask(callback) {
  callable(callback, "queueMicrotask");
  react(done, () => {
    try {
      callback();
    } catch (failure) {
      thrown.push(failure);
    }
  });
};

// An error in a job of the engine's own would end the instance without a word.
globalThis.FinalizationRegistry = class FinalizationRegistry extends globalThis.FinalizationRegistry {
  constructor(callback) {
    callable(callback, "FinalizationRegistry");
    super((held) => {
      try {
        callback(held);
      } catch (failure) {
        thrown.push(failure);
      }
    });
  }
};

let timers = []; // by the time when they are due
let lastTimer = 0;

function schedule(timer) {
  let index = timers.length;
  while (index > 0 && timers[index - 1].due > timer.due) index -= 1;
  timers.splice(index, 0, timer);
  return timer.id;
}

function started(callback, delay, args, isRepeated) {
  const ms = Math.min(Math.max(Math.trunc(Number(delay)) || 0, isRepeated ? 1 : 0), DELAY_MS_MAX);
  lastTimer += 1;
  return schedule({ id: lastTimer, due: clock.now() + ms * MS, callback, args, every: isRepeated ? ms : undefined });
}

function cleared(id) {
  timers = timers.filter((timer) => timer.id !== id);
}

globalThis.setTimeout = function setTimeout(callback, delay = 0, ...args) {
  return started(callable(callback, "setTimeout"), delay, args, false);
};
globalThis.setInterval = function setInterval(callback, delay = 0, ...args) {
  return started(callable(callback, "setInterval"), delay, args, true);
};
globalThis.clearTimeout = function clearTimeout(id) {
  cleared(id);
};
globalThis.clearInterval = function clearInterval(id) {
  cleared(id);
};

// Wait for the timer that is due first, and call it back.
function fire() {
  const timer = timers[0];
  const left = timer.due - clock.now();
  if (left > 0) {
    const pollable = clock.subscribeDuration(left);
    pollable.block();
    pollable[Symbol.dispose]();
  }
  timers.shift();
  if (timer.every !== undefined) schedule({ ...timer, due: clock.now() + timer.every * MS });
  timer.callback(...timer.args);
}

// --- turns

function complain() {
  if (thrown.length > 0) throw thrown[0];
  for (const reason of rejected.values()) throw new Unhandled(reason);
}

function stuck() {
  const places = [...waiting.values()].slice(0, PLACES_MAX);
  const where = places.length === 0 ? "" : `; still waiting: ${places.join(", ")}`;
  return new Error(`waits for a promise that nothing can settle any more: no timer and no callback is left${where}`);
}

// What an author's function returned, once it is there. Promises get their turns, and timers the time they wait for; timers
// that are set when the result is there never fire. `hasJobs`: whether there can be jobs without a promise to wait for.
export function awaited(value, hasJobs) {
  if (value === null || typeof value !== "object" || typeof value.then !== "function") {
    if (hasJobs) {
      jobs.run("");
      complain();
    }
    return value;
  }
  let outcome;
  react(
    NativePromise.resolve(value),
    (result) => {
      outcome = { result };
    },
    (reason) => {
      outcome = { reason };
    },
  );
  for (;;) {
    jobs.run("");
    if (outcome !== undefined && "reason" in outcome) throw outcome.reason;
    complain();
    if (outcome !== undefined) return outcome.result;
    if (timers.length === 0) throw stuck();
    fire();
  }
}
