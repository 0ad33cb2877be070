// @NAME@: counts words. Change `process`; try it with `agentctl template test` and `agentctl template run --watch`.
/// <reference path="./agentfactory.d.ts" />

import { config, log } from "agentfactory";

/** @type {import("agentfactory").Process} */
export function process(text) {
  const words = text.split(/\s+/).filter(Boolean).slice(0, config.words_max);
  log.info("counted", { words: words.length });
  return { words: words.length };
}
