// Run by Node while an author's module is built: agent.js as the tool takes it, beside the text that tracebacks quote.

import { readFileSync, writeFileSync } from "node:fs";
import { applied } from "./edits.js";
import { makesJobs, watching } from "./watch.js";

const source = readFileSync("agent.js", "utf8");
const { edits } = watching(source);
const helper = 'import { watch as agentfactoryWatch } from "./loop.js"; ';
const { code, map } = applied(source, edits.length ? [{ start: 0, end: 0, text: helper }, ...edits] : []);
writeFileSync("agent.js", code);
writeFileSync(
  "author_source.js",
  `export const source = ${JSON.stringify(source)};
export const columns = ${JSON.stringify(JSON.stringify(map))};
export const hasJobs = ${makesJobs(source)};
`,
);
