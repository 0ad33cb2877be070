// The QuickJS image: runs an author's source, once, in an interpreter that was started while the image was built.

import * as sdk from "agentfactory";
import { started } from "./node_modules/agentfactory/host.js";
import { answerText } from "./answer.js";
import "./globals.js";
import { awaited, runJobs, watch } from "./loop.js";
import { report } from "./report.js";
import { translated } from "./source.js";
import { makesJobs } from "./watch.js";

export { runJobs };

let author;
let source = "";
let columns = "[]";
let hasJobs = false;
const evaluate = eval; // called by another name it evaluates in the global scope

function guarded(work) {
  try {
    return work();
  } catch (failure) {
    throw report(failure, source, columns);
  }
}

function sdkImport(name) {
  if (name === undefined) return sdk;
  if (!Object.hasOwn(sdk, name)) throw new SyntaxError(`"agentfactory" has no ${name}; it has ${Object.keys(sdk).join(", ")}`);
  return sdk[name];
}

function execute(code) {
  started();
  author = awaited(evaluate(code)(sdkImport, watch), false); // jobs that it leaves run with process()
  if (typeof author !== "function") {
    throw new TypeError(`expected agent.js to export function process(text), got ${typeof author}`);
  }
}

const ZIP = "PK\u0003\u0004";

function script(given) {
  if (given.startsWith(ZIP)) throw new TypeError("expected agent.js, got a zip: bundle packages into one file");
  source = given;
  const { code, map } = translated(given);
  columns = JSON.stringify(map);
  hasJobs = makesJobs(given);
  return code;
}

export function load(given) {
  guarded(() => execute(script(given)));
}

// Whether there are jobs, the lengths of the map of columns and of the source, both, and the script made of it, so that nothing is parsed but the
// script. It is not evaluated here: what stands in it may leave the function that it is put into, and nothing of the
// author's is run yet.
export function prepare(given) {
  return guarded(() => {
    const code = script(given);
    return `${Number(hasJobs)} ${columns.length} ${source.length}\n${columns}${source}${code}`;
  });
}

export function loadPrepared(prepared) {
  guarded(() => {
    const head = prepared.indexOf("\n");
    const [jobs, columnsLength, sourceLength] = prepared.slice(0, head).split(" ").map(Number);
    hasJobs = jobs === 1;
    const middle = head + 1 + columnsLength;
    columns = prepared.slice(head + 1, middle);
    source = prepared.slice(middle, middle + sourceLength);
    execute(prepared.slice(middle + sourceLength));
  });
}

export function process(text) {
  return guarded(() => answerText(awaited(author(text), hasJobs)));
}
