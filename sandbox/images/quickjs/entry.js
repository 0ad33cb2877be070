// The QuickJS image: runs an author's source, once, in an interpreter that was started while the image was built.

import * as sdk from "agentfactory";
import { started } from "./node_modules/agentfactory/host.js";
import { answerText } from "./answer.js";
import { reseed } from "./globals.js";
import { report } from "./report.js";
import { PREFIX, translated } from "./source.js";

let author;
let source = "";
const evaluate = eval; // called by another name it evaluates in the global scope

function guarded(work) {
  try {
    return work();
  } catch (failure) {
    throw report(failure, source, PREFIX.length);
  }
}

function sdkImport(name) {
  if (name === undefined) return sdk;
  if (!Object.hasOwn(sdk, name)) throw new SyntaxError(`"agentfactory" has no ${name}; it has ${Object.keys(sdk).join(", ")}`);
  return sdk[name];
}

function execute(code) {
  started();
  reseed();
  author = evaluate(code)(sdkImport);
  if (typeof author !== "function") {
    throw new TypeError(`expected agent.js to export function process(text), got ${typeof author}`);
  }
}

const ZIP = "PK\u0003\u0004";

function take(given) {
  if (given.startsWith(ZIP)) throw new TypeError("expected agent.js, got a zip: bundle packages into one file");
  source = given;
}

export function load(given) {
  guarded(() => {
    take(given);
    execute(translated(given));
  });
}

// The length of the source, the source, and the script made of it, so that nothing is parsed but the script. It is not
// evaluated here: what stands in it may leave the function that it is put into, and nothing of the author's is run yet.
export function prepare(given) {
  return guarded(() => {
    take(given);
    const code = translated(given);
    return `${source.length}\n${source}${code}`;
  });
}

export function loadPrepared(prepared) {
  guarded(() => {
    const head = prepared.indexOf("\n");
    const end = head + 1 + Number(prepared.slice(0, head));
    source = prepared.slice(head + 1, end);
    execute(prepared.slice(end));
  });
}

export function process(text) {
  return guarded(() => answerText(author(text)));
}
