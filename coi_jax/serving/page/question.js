/** The question: an input and a list of instructions that can be added, moved, edited, joined and split. */

import { $, button, fit, make } from "./dom.js";

const JOINER = " and then ";

const list = $("instructions");
const items = () => [...list.children];
const parts = (item) => ({ instruction: item.querySelector(".instruction"), reference: item.querySelector(".reference") });
let changed = () => {};
let say = () => {};

/** Let functions be called when the question changes, and with what people should hear. */
export function watch(onChange, onSay) {
  changed = onChange;
  say = onSay;
  $("input").addEventListener("input", () => onChange());
}

/** Return the question as it stands. */
export function question() {
  const steps = items().map(parts);
  return {
    input: $("input").value,
    instructions: steps.map((step) => step.instruction.value),
    references: steps.map((step) => step.reference.value),
  };
}

/** Show a question in place of the one that stands. */
export function setQuestion({ input, instructions, references }) {
  $("input").value = input;
  list.replaceChildren(...instructions.map((text, step) => makeItem(text, references[step] || "")));
  renumber();
  for (const item of items()) fitAll(item);
}

/** Throw an Error where an instruction is empty, and go there. */
export function check() {
  const all = items(), place = all.findIndex((item) => !parts(item).instruction.value.trim());
  if (place < 0) return;
  focus(all[place]);
  throw new Error(`Instruction ${place + 1} is empty: say what to do${all.length > 1 ? ", or remove it" : ""}.`);
}

/** Add an empty instruction at the end. */
export function addInstruction() {
  list.append(makeItem("", ""));
  renumber();
  focus(items().at(-1));
}

function makeItem(text, reference) {
  const item = make("li", { class: "item" });
  const instruction = make("textarea", { class: "instruction", rows: 1, placeholder: "What to do with the text, e.g. Sort the words.", oninput: () => edit(item), onpaste: () => setTimeout(() => offer(item)), onkeydown: (event) => press(event, item) });
  const expected = make("textarea", { class: "reference", rows: 1, oninput: () => edit(item) });
  instruction.value = text;
  expected.value = reference;
  const more = make("details", { open: reference !== "", ontoggle: () => fit(expected) }, make("summary", {}, "Reference output (optional)"), expected);
  const tools = make("div", { class: "tools" }, tool("up", "↑", item, () => move(item, -1)), tool("down", "↓", item, () => move(item, 1)), tool("join", "Join with next", item, () => join(item)), tool("split", "Split", item, () => split(item)), tool("remove", "Remove", item, () => remove(item)));
  item.append(instruction, tools, more);
  return item;
}

const tool = (name, text, item, onclick) => button(text, text, onclick, { class: name });

function press(event, item) {
  if (!event.altKey || !["ArrowUp", "ArrowDown"].includes(event.key)) return;
  event.preventDefault();
  move(item, event.key === "ArrowUp" ? -1 : 1);
}

function edit(item) {
  fitAll(item);
  describe(item);
  changed();
}

function fitAll(item) {
  const { instruction, reference } = parts(item);
  fit(instruction);
  fit(reference);
}

function renumber() {
  items().forEach(describe);
  changed();
}

/** Name everything of an item by its place, and show what can be done with it there. */
function describe(item) {
  const all = items(), place = all.indexOf(item), step = place + 1, { instruction, reference } = parts(item);
  const pieces = instruction.value.split(JOINER).length;
  const set = (name, text, isShown, label) => {
    const one = item.querySelector(`.${name}`);
    one.hidden = !isShown;
    one.textContent = text;
    one.setAttribute("aria-label", label);
    one.title = label;
  };
  instruction.setAttribute("aria-label", `Instruction ${step}`);
  reference.setAttribute("aria-label", `Reference output of step ${step}`);
  set("up", "↑", all.length > 1, `Move instruction ${step} up`);
  set("down", "↓", all.length > 1, `Move instruction ${step} down`);
  item.querySelector(".up").disabled = place === 0;
  item.querySelector(".down").disabled = step === all.length;
  set("join", "Join with next", step < all.length, `Join instructions ${step} and ${step + 1}`);
  set("split", `Split into ${pieces}`, pieces > 1, `Split instruction ${step} into ${pieces}`);
  set("remove", "Remove", all.length > 1, `Remove instruction ${step}`);
}

const focus = (item) => parts(item).instruction.focus();

function move(item, by) {
  const all = items(), place = all.indexOf(item), target = all[place + by];
  if (!target) return;
  const focused = document.activeElement;
  if (by < 0) target.before(item);
  else target.after(item);
  renumber();
  const back = item.contains(focused) && !focused.disabled ? focused : parts(item).instruction;
  back.focus();
  say(`Moved to place ${place + by + 1} of ${all.length}`);
}

function remove(item) {
  const next = item.nextElementSibling || item.previousElementSibling;
  item.remove();
  renumber();
  focus(next);
}

/** The joined instruction's output is that of the second one, and so is its reference. */
function join(item) {
  const next = item.nextElementSibling, here = parts(item), there = parts(next);
  here.instruction.value = [here.instruction.value, there.instruction.value].join(JOINER);
  setReference(item, there.reference.value);
  next.remove();
  fitAll(item);
  renumber();
  focus(item);
}

function split(item) {
  const { instruction, reference } = parts(item), texts = instruction.value.split(JOINER), last = texts.length - 1;
  const added = texts.slice(1).map((text, place) => makeItem(text, place + 1 === last ? reference.value : ""));
  instruction.value = texts[0];
  setReference(item, "");
  item.after(...added);
  [item, ...added].forEach(fitAll);
  renumber();
  focus(item);
  say(`Split into ${texts.length} instructions`);
}

function setReference(item, text) {
  parts(item).reference.value = text;
  item.querySelector("details").open = text !== "";
}

function offer(item) {
  const pieces = parts(item).instruction.value.split(JOINER).length;
  item.querySelector(".split").classList.toggle("offered", pieces > 1);
  if (pieces > 1) say(`The pasted text joins ${pieces} instructions. “Split into ${pieces}” makes each a step of its own.`);
}
