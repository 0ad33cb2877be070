// An author's own module: their agent.js was started while the module was built; `process` runs in a fresh copy of that.

import { awaited, runJobs } from "./loop.js";
import { process as author } from "./agent.js";
import { started } from "./node_modules/agentfactory/host.js";
import { answerText } from "./answer.js";
import { reseed } from "./globals.js";
import { report } from "./report.js";
import { columns, hasJobs, source } from "./author_source.js";

export { runJobs };

export function process(text) {
  try {
    started();
    reseed();
    return answerText(awaited(author(text), hasJobs));
  } catch (failure) {
    throw report(failure, source, columns);
  }
}
