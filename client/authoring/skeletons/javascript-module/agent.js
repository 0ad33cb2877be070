// @NAME@: counts words, as a module: this file is started while it is built. Read the configuration inside `process`.
/// <reference path="./agentfactory.d.ts" />

import { config, log } from "agentfactory";

/** @type {import("agentfactory").Process} */
export function process(text) {
  const words = text.split(/\s+/).filter(Boolean).slice(0, config.words_max);
  log.info("counted", { words: words.length });
  return { words: words.length };
}
