// What `process` may return, as the text that travels.

export function answerText(answer) {
  if (answer !== null && typeof answer === "object") {
    return JSON.stringify(answer).toWellFormed();
  }
  if (typeof answer !== "string") {
    throw new TypeError(`expected process() to return text or an object, got ${answer === null ? "null" : typeof answer}`);
  }
  if (!answer.isWellFormed()) throw new TypeError("expected process() to return Unicode text, got a lone surrogate");
  return answer;
}
