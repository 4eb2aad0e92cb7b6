/** A question with its answers as the fragment of a link: base64url of JSON. Browsers do not send fragments. */

const VERSION = 1;
const MOST_STEPS = 100;
const MOST_COLUMNS = 2;
const ENDS = ["done", "stopped", "failed"]; // of answers

/** Return a state as the fragment of a link. */
export function encode(state) {
  const bytes = new TextEncoder().encode(JSON.stringify({ version: VERSION, ...state }));
  let binary = "";
  for (let place = 0; place < bytes.length; place += 8192) binary += String.fromCharCode(...bytes.subarray(place, place + 8192));
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}

/** Return the state in the fragment of a link. Throws an Error that says what is wrong with it. */
export function decode(fragment) {
  return checked(parse(fragment));
}

function parse(fragment) {
  try {
    const binary = atob(fragment.replaceAll("-", "+").replaceAll("_", "/"));
    return JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(binary, (char) => char.charCodeAt(0))));
  } catch {
    throw new Error("it is cut off or damaged");
  }
}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isText = (value) => typeof value === "string";
const isTexts = (value) => Array.isArray(value) && value.length <= MOST_STEPS && value.every(isText);
const isCount = (value) => typeof value === "number" && Number.isFinite(value) && value >= 0;

function need(holds, what) {
  if (!holds) throw new Error(`${what} is missing or of another kind`);
}

function checked(state) {
  need(isObject(state), "its content");
  if (state.version !== VERSION) throw new Error("it is of another version of this page");
  need(isText(state.input), "its input");
  need(isTexts(state.instructions) && state.instructions.length > 0, "its list of instructions");
  need(isTexts(state.references) && state.references.length === state.instructions.length, "its list of references");
  need(isTexts(state.models) && state.models.length <= MOST_COLUMNS, "its list of models");
  need(isObject(state.settings) && Object.values(state.settings).every(isText), "its settings");
  need(Array.isArray(state.answers) && state.answers.length <= MOST_COLUMNS, "its list of answers");
  state.answers.forEach(checkColumn);
  return state;
}

function checkColumn(column) {
  need(isObject(column) && isText(column.model) && isAnswer(column.answer), "an answer");
  need(column.earlier === null || isAnswer(column.earlier), "an earlier answer");
}

function isAnswer(answer) {
  const holds = isObject(answer) && isTexts(answer.outputs) && isText(answer.text) && ENDS.includes(answer.state) && isObject(answer.stages);
  return holds && Object.values(answer.stages).every(isText) && ["kept", "tokens", "seconds"].every((name) => isCount(answer[name])) && isTexts(answer.notes);
}
