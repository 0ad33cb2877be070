// An author's ES module as a script: QuickJS can be given no module while it runs, only a script to evaluate.
//
// Imports become constants and exports lose their keyword; everything stays on its line. The lexer is es-module-lexer's.

import { applied } from "./edits.js";
import { parse } from "./lexer.js";
import { watching } from "./watch.js";

class SourceError extends SyntaxError {
  constructor(message, source, index) {
    super(message);
    this.line = source.slice(0, index).split("\n").length;
  }
}
SourceError.prototype.name = "SyntaxError";

const NAMESPACE = /^\*\s*as\s+([\p{ID_Start}$_][\p{ID_Continue}$]*)$/u;
const KEPT = "[^\n]";

// The script, and the map of its columns (edits.js).
export function translated(source) {
  const [imports, exports] = lexed(source);
  const watched = watching(source);
  const edits = [...watched.edits];
  for (const one of imports) if (one.type !== "reexport-star") edits.push(importEdit(source, one));
  const statements = new Map();
  let local = "typeof process === 'function' ? process : undefined";
  for (const one of exports) {
    if (one.type !== "direct") throw new SourceError("expected exports of this file's own names", source, one.exportStart);
    if (one.name === "process" && one.localName !== undefined) local = one.localName;
    statements.set(one.exportStart, one);
  }
  for (const one of statements.values()) edits.push(exportEdit(source, one));
  const before = `(${watched.awaitsAtTop ? "async " : ""}function (agentfactoryImport, agentfactoryWatch) { "use strict"; `;
  return applied(source, [
    { start: 0, end: 0, text: before },
    ...edits,
    { start: source.length, end: source.length, text: `\nreturn ${local}; })` },
  ]);
}

function lexed(source) {
  try {
    return parse(source);
  } catch (failure) {
    if (!Number.isInteger(failure?.idx)) throw failure;
    throw new SourceError("the module's imports and exports cannot be read from here on", source, failure.idx);
  }
}

function importEdit(source, one) {
  if (one.type !== "static") {
    throw new SourceError(`${one.type === "dynamic" ? "import()" : "import.meta"} does not exist here`, source, one.importStart);
  }
  if (one.specifier !== "agentfactory") {
    throw new SourceError(
      `expected an import from "agentfactory", got "${one.specifier}": the image has no other modules; ` +
        "bundle packages into the file (docs/tutorials/javascript.md)",
      source,
      one.importStart,
    );
  }
  const original = source.slice(one.importStart, one.importEnd);
  const clause = source.slice(one.importStart + "import".length, one.start - 1);
  const lineEnds = original.replace(new RegExp(KEPT, "g"), "");
  return { start: one.importStart, end: one.importEnd, text: constants(clause, source, one) + lineEnds };
}

function constants(clause, source, one) {
  const bare = clause.replace(/\/\*[\s\S]*?\*\/|\/\/[^\n]*/g, " ").trim().replace(/\bfrom$/, "").trim();
  if (bare === "") return ";";
  const [, first, rest] = /^(?:([\p{ID_Start}$_][\p{ID_Continue}$]*)\s*(?:,\s*|$))?([\s\S]*)$/u.exec(bare);
  const made = first === undefined ? [] : [`${first} = agentfactoryImport().default`];
  const namespace = NAMESPACE.exec(rest);
  if (namespace) made.push(`${namespace[1]} = agentfactoryImport()`);
  else if (rest.startsWith("{")) {
    const names = rest.slice(1, rest.lastIndexOf("}")).split(",").map((each) => each.trim()).filter(Boolean);
    for (const each of names) {
      const [name, as] = each.split(/\s+as\s+/);
      made.push(`${as ?? name} = agentfactoryImport(${JSON.stringify(name)})`);
    }
  } else if (rest !== "") throw new SourceError(`this import cannot be read: ${bare}`, source, one.importStart);
  return made.length ? `const ${made.join(", ")}` : ";";
}

function exportEdit(source, one) {
  const after = /^export\s*(\{|default\b)?/.exec(source.slice(one.exportStart));
  if (after[1] === "default") {
    throw new SourceError("expected export function process(text), got export default", source, one.exportStart);
  }
  const end = after[1] === "{" ? source.indexOf("}", one.exportStart) + 1 : one.exportStart + "export".length;
  const text = source.slice(one.exportStart, end).replace(new RegExp(KEPT, "g"), " ");
  return { start: one.exportStart, end, text };
}
