// An author's own module: their agent.js was started while the module was built; `process` runs in a fresh copy of that.

import { process as author } from "./agent.js";
import { started } from "./node_modules/agentfactory/host.js";
import { answerText } from "./answer.js";
import { reseed } from "./globals.js";
import { report } from "./report.js";
import { source } from "./author_source.js";

export function process(text) {
  try {
    started();
    reseed();
    return answerText(author(text));
  } catch (failure) {
    throw report(failure, source);
  }
}
