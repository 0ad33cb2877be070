// Async functions whose promises are watched (loop.js): the engine tells a script nothing of promises that it makes itself.
//
// `async function f(a) { … }` becomes a function that calls an async arrow function with the same parameters and body, and
// hands its promise to agentfactoryWatch. `this`, `arguments`, `super` and `new.target` of an arrow function are those
// around it. Everything stays on its line. What cannot be parsed is left alone: QuickJS says what is wrong with it.

import { parse } from "./acorn.js";

const WATCH = "agentfactoryWatch";
const GIVEN = "agentfactoryGiven";
const CHARACTERS_MAX = 256 * 1024; // parsing takes a second for a megabyte or so, and fuel

// Sources without any of these words leave no job behind: asking for jobs would cost each call a fifth of its fuel.
export function makesJobs(source) {
  return /\b(?:async|Promise|queueMicrotask|fromAsync|FinalizationRegistry)\b/.test(source);
}

export function watching(source) {
  const found = { edits: [], awaitsAtTop: false };
  if (!/\basync\b|\bawait\b/.test(source) || source.length > CHARACTERS_MAX) return found;
  let tree;
  try {
    tree = parse(source, { ecmaVersion: "latest", sourceType: "module", locations: true });
  } catch {
    return found;
  }
  const starts = [];
  const ends = [];
  const visit = (node, name, isInside) => {
    if (node.type === "AwaitExpression" || (node.type === "ForOfStatement" && node.await)) found.awaitsAtTop ||= !isInside;
    const isFunction = /Function/.test(node.type);
    const edits = isFunction && node.async && !node.generator ? editsOf(source, node, name) : undefined;
    if (edits) starts.push(...edits.starts);
    for (const [child, childsName] of childrenOf(node)) visit(child, childsName, isInside || isFunction);
    if (edits) ends.push(edits.end);
  };
  visit(tree, undefined, false);
  found.edits = [...ends, ...starts]; // where one function ends and another begins, the end comes first
  return found;
}

function* childrenOf(node) {
  for (const [key, value] of Object.entries(node)) {
    if (key === "loc") continue;
    for (const child of Array.isArray(value) ? value : [value]) {
      if (typeof child?.type === "string") yield [child, nameOf(node, child)];
    }
  }
}

// The name that a function has by standing where it does.
function nameOf(parent, child) {
  if (parent.type === "VariableDeclarator" && parent.init === child) return parent.id.name;
  if (parent.type === "AssignmentExpression" && parent.right === child) return parent.left.name;
  if (["Property", "MethodDefinition", "PropertyDefinition"].includes(parent.type) && parent.value === child) {
    return parent.computed ? undefined : String(parent.key.name ?? parent.key.value);
  }
  return undefined;
}

function editsOf(source, node, given) {
  const name = node.id?.name ?? given ?? "";
  const key = JSON.stringify(`async ${name}`.trim());
  const place = JSON.stringify(`${name === "" ? "a function" : name} (agent.js:${node.loc.start.line})`);
  const before = `${WATCH}({${key}:`;
  const after = `}[${key}](...${GIVEN}),${place})`;
  if (node.type === "ArrowFunctionExpression") {
    return { starts: [inserted(node.start, `(...${GIVEN})=>${before}`)], end: inserted(node.end, after) };
  }
  const parenthesis = opening(source, node);
  const keyword = asyncBefore(source, node, parenthesis);
  if (keyword === undefined) return undefined;
  const last = node.params.at(-1)?.end ?? parenthesis + 1;
  const closing = last + uncommented(source.slice(last, node.body.start)).indexOf(")") + 1;
  return {
    starts: [
      { start: keyword, end: keyword + "async".length, text: "     " },
      inserted(parenthesis, `(...${GIVEN}){return ${before}async`),
      inserted(closing, "=>"),
    ],
    end: inserted(node.body.end, `${after}}`),
  };
}

function inserted(start, text) {
  return { start, end: start, text };
}

// Where the parameters begin. A method's function begins with them.
function opening(source, node) {
  const from = node.id?.end ?? node.start;
  return from + uncommented(source.slice(from, node.body.start)).indexOf("(");
}

// Where the word stands: first in a function, before the key of a method. One with a computed key is left alone.
function asyncBefore(source, node, parenthesis) {
  if (source.startsWith("async", node.start)) return node.start;
  const key = /\basync\s+(?:[#\p{ID_Start}$_][\p{ID_Continue}$\u200c\u200d]*|"[^"\n]*"|'[^'\n]*'|[\d.]+)\s*$/u;
  const match = key.exec(uncommented(source.slice(Math.max(parenthesis - 1024, 0), parenthesis)));
  return match === null ? undefined : Math.max(parenthesis - 1024, 0) + match.index;
}

function uncommented(text) {
  return text.replace(/\/\*[\s\S]*?\*\/|\/\/[^\n]*/g, (comment) => comment.replace(/[^\n]/g, " "));
}
