/** Which words of two texts differ. */

import { make } from "./dom.js";

const MOST_CELLS = 4e6; // of the table behind a comparison

// Words, white space and signs; a flag or an emoji made of several characters is one sign.
const cut = (text) => text.match(/[\p{L}\p{M}\p{N}_]+|\s+|\p{RI}{2}|\S[\p{M}\p{EMod}]*(?:\u200d\S[\p{M}\p{EMod}]*)*/gu) || [];
const isSpace = (part) => /^\s/.test(part);

/** Return, for each word of a, whether it has no partner in b (the longest common subsequence pairs them). */
export function differing(a, b) {
  let start = 0, end = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start += 1;
  while (end < a.length - start && end < b.length - start && a.at(-1 - end) === b.at(-1 - end)) end += 1;
  const found = a.map((_, place) => place >= start && place < a.length - end);
  const left = a.slice(start, a.length - end), right = b.slice(start, b.length - end), width = right.length + 1;
  if (left.length * width > MOST_CELLS) return found;
  const common = new Uint32Array((left.length + 1) * width);
  for (let i = left.length - 1; i >= 0; i -= 1) {
    for (let j = right.length - 1; j >= 0; j -= 1) {
      const next = (i + 1) * width + j;
      common[i * width + j] = left[i] === right[j] ? common[next + 1] + 1 : Math.max(common[next], common[i * width + j + 1]);
    }
  }
  for (let i = 0, j = 0; i < left.length && j < right.length; ) {
    if (left[i] === right[j]) {
      found[start + i] = false;
      i += 1;
      j += 1;
    } else if (common[(i + 1) * width + j] >= common[i * width + j + 1]) i += 1;
    else j += 1;
  }
  return found;
}

/** Return a text as nodes; words that another text does not have are marked with a class. */
export function marked(text, other, kind) {
  const parts = cut(text), words = parts.filter((part) => !isSpace(part));
  const differs = differing(words, cut(other).filter((part) => !isSpace(part)));
  const nodes = [];
  let word = 0, run = "", isMarked = false;
  const close = () => {
    if (run) nodes.push(isMarked ? make("mark", { class: kind }, run) : document.createTextNode(run));
    run = "";
  };
  for (const part of parts) {
    // White space is marked between two words that are.
    const marks = isSpace(part) ? isMarked && differs[word] === true : differs[word++];
    if (marks !== isMarked) close();
    isMarked = marks;
    run += part;
  }
  close();
  return nodes;
}
