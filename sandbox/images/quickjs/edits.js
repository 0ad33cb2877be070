// Changes to an author's source that keep its lines, and the way back from a column of the changed text to the author's.

// Edits are {start, end, text} by position in the source, none inside another; of those at one place the first comes first.
// Returns the changed code and its map: [line, column, added, removed] for each change of length, columns of the new text.
export function applied(source, edits) {
  const ordered = edits.map((edit, index) => ({ ...edit, index }));
  ordered.sort((one, other) => one.start - other.start || one.index - other.index);
  const map = [];
  let code = "";
  let position = 0;
  let line = 1;
  let lineStart = 0;
  const add = (text) => {
    for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) {
      line += 1;
      lineStart = code.length + at + 1;
    }
    code += text;
  };
  for (const { start, end, text } of ordered) {
    add(source.slice(position, start));
    const column = code.length - lineStart + 1;
    if (text.length !== end - start && !text.includes("\n")) map.push([line, column, text.length, end - start]);
    add(text);
    position = end;
  }
  add(source.slice(position));
  return { code, map };
}

// The author's column, or undefined where all the text is ours.
export function authorsColumn(map, line, column) {
  let shift = 0;
  for (const [changed, from, added, removed] of map) {
    if (changed !== line || from > column) continue;
    if (column < from + added && removed === 0) return undefined;
    shift += added - removed;
  }
  return Math.max(column - shift, 1);
}
