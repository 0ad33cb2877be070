// What QuickJS itself does not have and every author expects: console, and randomness of the host's.

import random from "wasi:random/random@0.2.12";
import { log } from "agentfactory";

const LEVELS = { debug: "debug", info: "info", log: "info", warn: "warning", error: "error" };

function shown(value) {
  if (typeof value === "string") return value;
  if (value instanceof Error) return `${value.name}: ${value.message}`;
  try {
    return JSON.stringify(value) ?? String(value);
  } catch {
    return String(value);
  }
}

globalThis.console = Object.fromEntries(
  Object.entries(LEVELS).map(([name, level]) => [name, (...values) => log[level](values.map(shown).join(" "))]),
);

globalThis.crypto = {
  getRandomValues(array) {
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    bytes.set(random.getRandomBytes(bytes.length));
    return array;
  },
  randomUUID() {
    const bytes = random.getRandomBytes(16);
    const at = (index) => bytes[index].toString(16).padStart(2, "0");
    const hex = Array.from({ length: 16 }, (_, index) => {
      if (index === 6) return ((bytes[6] & 0x0f) | 0x40).toString(16);
      return index === 8 ? ((bytes[8] & 0x3f) | 0x80).toString(16) : at(index);
    });
    return `${hex.slice(0, 4).join("")}-${hex.slice(4, 6).join("")}-${hex.slice(6, 8).join("")}-${hex.slice(8, 10).join("")}-${hex.slice(10).join("")}`;
  },
};

// The heap is snapshotted when the image is built, and QuickJS's own generator with it: every instance would draw the
// same numbers. So Math.random is xoshiro128** (Blackman and Vigna, 2018) over sixteen bytes of the host's, which it asks
// for when the first number is drawn; most agents draw none.
let state;

function seeded() {
  const bytes = random.getRandomBytes(16);
  const words = new Uint32Array(4);
  for (let index = 0; index < 16; index += 1) words[index >> 2] |= bytes[index] << (8 * (index & 3));
  words[0] |= 1; // never all zero
  return words;
}

const rotated = (value, count) => (value << count) | (value >>> (32 - count));

function next() {
  state ??= seeded();
  const result = Math.imul(rotated(Math.imul(state[1], 5), 7), 9) >>> 0;
  const shifted = state[1] << 9;
  state[2] ^= state[0];
  state[3] ^= state[1];
  state[1] ^= state[2];
  state[0] ^= state[3];
  state[2] ^= shifted;
  state[3] = rotated(state[3], 11);
  return result;
}

Math.random = () => (next() >>> 5) / 134217728 + (next() >>> 6) / 9007199254740992;

// What was drawn while a module was built must not be drawn again.
export function reseed() {
  state = undefined;
}
