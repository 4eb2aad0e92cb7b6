/** The answers: one column for each model, one row for each step, each output open to a change. */

import { body, stream } from "./api.js";
import { $, button, fit, make } from "./dom.js";
import { marked } from "./words.js";

const SECOND = 1000; // ms

/** What is shown: the question that was asked, and a column {model, answer, earlier, controller} for each model. */
let shown = null;
let tools = { settings: () => ({}), fail: () => {}, changed: () => {} };

/** Let the answers know the settings of the page, where errors are shown, and whom to tell that something began or ended. */
export function connect(given) {
  tools = given;
}

const isShown = (column) => shown !== null && shown.columns.includes(column);
const isWriting = (column) => column.answer.state === "writing";
export const isBusy = () => shown !== null && shown.columns.some(isWriting);

/** End all answers that are being written. */
export function stop() {
  for (const column of shown ? shown.columns : []) column.controller?.abort();
}

/** Ask some models a question, in columns. */
export async function run(question, models) {
  stop();
  shown = { question, columns: models.map((model) => ({ model, answer: begin([]), earlier: null, controller: null })) };
  build();
  await Promise.all(shown.columns.map((column) => write(column, [])));
}

/** Begin an answer whose first steps are given. */
function begin(outputs) {
  return { outputs, kept: outputs.length, text: "", state: "writing", tokens: 0, seconds: 0, notes: [], stages: {} };
}

async function write(column, outputs) {
  const answer = column.answer, started = performance.now();
  const time = () => { answer.seconds = (performance.now() - started) / SECOND; };
  const clock = setInterval(() => { time(); showState(column); }, SECOND);
  column.controller = new AbortController();
  tools.changed();
  try {
    const request = body(column.model, shown.question, outputs, tools.settings());
    for await (const part of stream(request, column.controller.signal)) take(column, answer, part);
    answer.state = "done";
  } catch (error) {
    answer.state = error.name === "AbortError" ? "stopped" : "failed";
    if (answer.state === "failed") answer.notes = [error.message];
    if (error.isKeyWrong) tools.fail(error);
  }
  clearInterval(clock);
  time();
  if (column.answer === answer && isShown(column)) end(column);
}

/** Take in a part of a stream: steps that changed, or all of them at the end. */
function take(column, answer, part) {
  if (part.usage) answer.tokens = part.usage.completion_tokens;
  const [choice] = part.choices;
  if (!choice) return;
  answer.text += choice.delta.content || "";
  const coi = choice.coi || { steps: [] };
  const finished = answer.outputs.length;
  if (choice.finish_reason) {
    answer.outputs = coi.steps.map((step) => step.output);
    answer.stages = coi.stages || {};
    answer.notes = notes(coi, shown.question.instructions.length);
  } else for (const { step, output } of coi.steps) answer.outputs[step - 1] = output;
  if (column.answer !== answer || !isShown(column)) return;
  showState(column);
  if (answer.outputs.length > finished && finished > answer.kept) announce(column, finished - 1);
  if (choice.finish_reason || answer.outputs.length > rows()) show();
  else for (let step = Math.max(0, finished - 1); step < Math.max(1, answer.outputs.length); step += 1) showCell(column, step);
}

const counted = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

function notes(coi, length) {
  const found = [], written = coi.steps.length;
  if (!coi.complete) found.push("The answer stopped at the limit of tokens.");
  if (written !== length) found.push(`The answer has ${counted(written, "step")}, ${length} were asked for.`);
  else if (!coi.well_formed) found.push("The labels of the steps are not as they should be.");
  return found;
}

function end(column) {
  show();
  const { state, outputs, notes } = column.answer;
  if (state === "done" && outputs.length) announce(column, outputs.length - 1);
  if (state === "failed") tell(column, notes[0]);
  tools.changed();
}

/** Tell those who hear the page of a step that is whole. */
const announce = (column, step) => tell(column, `step ${step + 1}: ${column.answer.outputs[step]}`);

function tell(column, text) {
  const whose = shown.columns.length > 1 ? `${column.model}, ` : "";
  $("announcer").append(make("p", {}, whose + text));
}

// ---- What if a step had said something else?

/** Let a model go on from its steps up to one, whose output is changed. */
function goOn(column, step, output) {
  const outputs = [...column.answer.outputs.slice(0, step), output];
  column.earlier = column.answer;
  column.answer = begin([...outputs]);
  build();
  heading(column).focus();
  return write(column, outputs);
}

function swap(column) {
  [column.answer, column.earlier] = [column.earlier, column.answer];
  build();
  heading(column).focus();
  tools.changed();
}

const head = (column) => $("heads").children[shown.columns.indexOf(column)];
const heading = (column) => head(column).querySelector("h3");

// ---- Show

const rows = () => $("steps").children.length;

/** Build all rows anew. */
function build() {
  $("announcer").replaceChildren();
  $("steps").replaceChildren();
  show();
}

/** Show everything as it stands; a step that is being changed is left alone. */
function show() {
  const { question, columns } = shown;
  const outputs = columns.flatMap(({ answer, earlier }) => [answer.outputs.length, earlier ? earlier.outputs.length : 0]);
  const length = Math.max(question.instructions.length, ...outputs);
  while (rows() < length) $("steps").append(makeRow(rows()));
  $("answer").classList.toggle("two", columns.length > 1);
  $("empty").hidden = true;
  for (const column of columns) for (let step = 0; step < length; step += 1) showCell(column, step);
  $("heads").replaceChildren(...columns.map(makeHead));
  $("tails").replaceChildren(...columns.map(makeTail));
  showLegend();
}

function makeRow(step) {
  const instruction = shown.question.instructions[step];
  const title = make("h3", {}, make("span", { class: "number" }, `Step ${step + 1}`), " ", make("bdi", {}, instruction ?? "(a step that was not asked for)"));
  return make("li", {}, title, make("div", { class: "columns" }, ...shown.columns.map(() => make("div", { class: "cell" }))));
}

function makeHead(column) {
  const { answer, model } = column;
  return make(
    "div",
    { class: "head" },
    make("h3", { tabindex: "-1" }, model),
    make("p", { class: "soft state" }, stateOf(column)),
    ...answer.notes.map((note) => make("p", { class: "fault" }, note)),
    column.earlier && !isWriting(column) ? button("Back to the earlier answer", `Back to the earlier answer of ${model}`, () => swap(column)) : null,
  );
}

/** Say how an answer is coming along: the model may first have others to answer. */
function stateOf(column) {
  const { answer } = column;
  if (isWriting(column)) return `${answer.text ? "writing" : "waiting for the model"} … ${answer.seconds ? `${Math.round(answer.seconds)} s` : ""}`;
  const score = verdicts(column), right = score.filter(Boolean).length;
  const parts = [answer.state, answer.tokens ? counted(answer.tokens, "token") : "", `${answer.seconds.toFixed(1)} s`, score.length ? `${right} of ${score.length} steps right` : ""];
  return parts.filter(Boolean).join(" · ");
}

function showState(column) {
  if (isShown(column)) head(column).querySelector(".state").textContent = stateOf(column);
}

/** Say of each step that has ended and has a reference whether it is right. */
function verdicts(column) {
  const found = shown.question.instructions.map((_, step) => verdict(column, step));
  return found.filter((one) => one !== null);
}

/** Return whether a step is right; null where that is not known. */
function verdict(column, step) {
  const reference = (shown.question.references[step] || "").trim();
  if (!reference || !isWhole(column, step)) return null;
  return (column.answer.outputs[step] ?? "").trim() === reference;
}

function showCell(column, step) {
  const row = $("steps").children[step];
  const cell = row && row.querySelectorAll(".cell")[shown.columns.indexOf(column)];
  if (!cell || cell.querySelector("textarea")) return;
  cell.replaceChildren(...makeCell(column, step));
}

function makeCell(column, step) {
  const { answer, earlier, model } = column, output = answer.outputs[step];
  const right = verdict(column, step), reference = shown.question.references[step] || "";
  const children = [];
  if (shown.columns.length > 1) children.push(make("p", { class: "who soft" }, model));
  if (output === undefined) children.push(makeGap(answer, step));
  else children.push(make("div", { class: "text" }, ...describe(column, step)));
  if (step < answer.kept) children.push(tag(step === answer.kept - 1 ? "✎ changed by you" : "kept", "given"));
  if (right !== null) children.push(tag(right ? "✓ right" : "✗ wrong", right ? "right" : "wrong"));
  if (canChange(column, step)) children.push(button("Change …", `Change the output of step ${step + 1} of ${model}`, () => edit(column, step), { class: "change" }));
  if (right === false) children.push(beside("Reference", marked(reference, output ?? "", "missing")));
  if (earlier && step >= answer.kept - 1 && step < earlier.outputs.length) children.push(makeEarlier(earlier.outputs[step], output));
  return children;
}

/** What is shown where a step has no output. */
function makeGap(answer, step) {
  const isNext = step === answer.outputs.length;
  // A text whose first label is not there yet, or never comes.
  const text = isNext && step === 0 ? answer.text : "";
  if (answer.state !== "writing" && !text) return make("p", { class: "soft" }, "(nothing written)");
  return make("div", { class: isNext ? "text waits" : "text idle" }, text || (isNext ? "…" : ""));
}

/** Return an output as nodes, its words marked that what it is compared with does not have. */
function describe(column, step) {
  const output = column.answer.outputs[step], other = compared(column, step);
  if (output === "") return [make("span", { class: "soft" }, "(empty)")];
  return other ? marked(output, other.text, "extra") : [output];
}

/** Return what an output is compared with: the reference, or the earlier answer, or the other model's answer. */
function compared(column, step) {
  if (column.answer.outputs[step] === undefined || !isWhole(column, step)) return null;
  if (verdict(column, step) !== null) return { name: "reference", text: shown.question.references[step] };
  const before = column.earlier?.outputs[step];
  if (before !== undefined) return { name: "earlier answer", text: before };
  const other = shown.columns.find((one) => one !== column);
  if (!other || other.answer.outputs[step] === undefined || !isWhole(other, step)) return null;
  return { name: "other model's answer", text: other.answer.outputs[step] };
}

/** Return whether a step was written to its end: the last one of an answer that broke off was not. */
const isWhole = ({ answer }, step) => answer.state === "done" || step < answer.kept || step < answer.outputs.length - 1;

function makeEarlier(before, output) {
  if (output !== undefined && before.trim() === output.trim()) return make("p", { class: "beside soft" }, "As in the earlier answer.");
  return beside("Earlier", output === undefined ? [before] : marked(before, output, "gone"));
}

const tag = (text, kind) => make("span", { class: `tag ${kind}` }, text);
const beside = (name, nodes) => make("div", { class: "beside" }, make("b", {}, `${name}: `), make("bdi", {}, ...nodes));

/** The last step cannot be given: nothing would be left to answer. */
function canChange({ answer }, step) {
  return answer.state !== "writing" && step < answer.outputs.length && step < shown.question.instructions.length - 1;
}

function edit(column, step) {
  const row = $("steps").children[step], cell = row.querySelectorAll(".cell")[shown.columns.indexOf(column)];
  const area = make("textarea", { rows: 1, "aria-label": `Output of step ${step + 1} of ${column.model}`, oninput: () => fit(area) });
  area.value = column.answer.outputs[step];
  const go = () => goOn(column, step, area.value);
  const leave = () => {
    cell.replaceChildren(...makeCell(column, step));
    cell.querySelector(".change")?.focus();
  };
  area.addEventListener("keydown", (event) => {
    if (event.key === "Escape") leave();
    else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) go();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  const tools = make("div", { class: "tools" }, button("Run on from here", `Run on from step ${step + 1} of ${column.model}`, go, { class: "main" }), button("Cancel", "Cancel the change", leave));
  cell.replaceChildren(make("p", { class: "soft" }, `What if step ${step + 1} had said:`), area, tools);
  fit(area);
  area.focus();
}

function makeTail({ answer, model }) {
  if (answer.state === "writing" || !answer.text) return make("div");
  const before = Object.entries(answer.stages).flatMap(([name, text]) => [make("h4", {}, `Written before the answer: ${name}`), make("pre", {}, text)]);
  return make("details", {}, make("summary", {}, "Text as it was written", make("span", { class: "unseen" }, ` by ${model}`)), ...before, make("pre", {}, answer.text));
}

/** Say what the marks mean that are there. */
function showLegend() {
  const steps = [...Array(rows()).keys()];
  const names = new Set(shown.columns.flatMap((column) => steps.map((step) => compared(column, step)?.name).filter(Boolean)));
  const meanings = [
    ["extra", `that the ${[...names].join(" or the ")} does not have`, names.size > 0],
    ["missing", "of the reference that the answer does not have", names.has("reference")],
    ["gone", "of the earlier answer that are gone", shown.columns.some((column) => column.earlier)],
  ].filter(([, , isThere]) => isThere);
  $("legend").hidden = meanings.length === 0;
  $("legend").replaceChildren(...meanings.map(([kind, meaning]) => make("span", { class: "meaning" }, make("mark", { class: kind }, "words"), ` ${meaning}`)));
}

// ---- The question and the link

const areSame = (texts, others) => JSON.stringify(texts) === JSON.stringify(others);

/** Take in a question that was edited: its references count at once, anything else is noted. */
export function follow(question) {
  if (!shown) return;
  const isSame = question.input === shown.question.input && areSame(question.instructions, shown.question.instructions);
  $("stale").hidden = isSame;
  if (!isSame || areSame(question.references, shown.question.references)) return;
  shown.question.references = question.references;
  show();
}

/** Return the answers for a link: those of the question as it stands, once they have ended. */
export function answers() {
  if (!shown || !$("stale").hidden || isBusy()) return [];
  return shown.columns.map(({ model, answer, earlier }) => ({ model, answer, earlier }));
}

/** Show the answers of a link. */
export function setAnswers(question, columns) {
  stop();
  shown = columns.length ? { question, columns: columns.map((column) => ({ ...column, controller: null })) } : null;
  $("stale").hidden = true;
  if (shown) build();
  else clear();
  tools.changed();
}

function clear() {
  for (const part of ["heads", "steps", "tails", "announcer"]) $(part).replaceChildren();
  $("legend").hidden = true;
  $("empty").hidden = false;
}
