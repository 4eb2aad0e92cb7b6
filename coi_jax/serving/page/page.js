/** The page: settings, the run, links, keys. */

import * as api from "./api.js";
import * as answers from "./answers.js";
import { $, copy, fill, make } from "./dom.js";
import { decode, encode } from "./link.js";
import { addInstruction, check, question, setQuestion, watch } from "./question.js";
import { curl, python } from "./snippets.js";

const SETTINGS = ["temperature", "top_p", "seed", "max_tokens"];
const POLL = 1000; // ms between questions whether models are loaded

let limits = {}; // of the tokens of an answer, by model

const note = (text) => { $("note").textContent = text; };

function fail(error) {
  $(error.isKeyWrong ? "key-error" : "error").textContent = error.message;
  if (!error.isKeyWrong) return;
  $("key-form").hidden = false;
  $("key").focus();
}

// ---- Settings

function settings() {
  const found = {};
  for (const name of SETTINGS) {
    const text = $(name).value.trim(), value = Number(text);
    if (text === "") continue;
    if (!Number.isFinite(value)) throw new api.Fault(`${name}: ${text} is no number`);
    found[name] = value;
  }
  return found;
}

const chosen = () => [$("model").value, $("second").value].filter(Boolean);

async function loadModels() {
  let found;
  try {
    found = await api.models();
  } catch (error) {
    $("state").textContent = "";
    return fail(error);
  }
  $("key-form").hidden = true;
  const names = found.map(({ id }) => [id, id]);
  fill($("model"), names);
  fill($("second"), [["", "no other model"], ...names]);
  $("second-field").hidden = found.length < 2;
  describe(found);
  loadExamples();
  return found;
}

function describe(found) {
  limits = Object.fromEntries(found.map(({ id, coi }) => [id, coi.max_new_tokens]));
  showLimit();
  const loading = found.filter(({ coi }) => !coi.ready).map(({ id }) => id);
  $("state").textContent = loading.length ? `loading ${loading.join(", ")} …` : "";
  if (loading.length) setTimeout(loadModels, POLL);
}

function showLimit() {
  $("max_tokens").placeholder = `${limits[$("model").value]} at most`;
}

// ---- Examples

const LONGEST_LABEL = 90;
let examples = [], examplesOf = null;

/** Offer chains of the test sets of the chosen model. */
async function loadExamples() {
  if (examplesOf === $("model").value) return;
  examplesOf = $("model").value;
  try {
    examples = await api.examples($("model").value);
  } catch {
    examples = []; // whatever it is, the question that is asked will tell it
  }
  $("example-field").hidden = examples.length === 0;
  const tests = [...new Set(examples.map(({ test }) => test))];
  $("example").replaceChildren(make("option", { value: "" }, "choose one …"), ...tests.map((test) => make("optgroup", { label: test }, ...examples.flatMap((one, place) => (one.test === test ? [make("option", { value: place }, label(one))] : [])))));
}

function label({ input, instructions }) {
  const text = `${input} → ${instructions.join(" → ")}`;
  return text.length > LONGEST_LABEL ? `${text.slice(0, LONGEST_LABEL)} …` : text;
}

function takeExample() {
  const one = examples[$("example").value];
  if (!one) return;
  setQuestion({ ...one, references: one.references.map((text) => text ?? "") });
}

// ---- Run

async function run() {
  $("error").textContent = "";
  note("");
  try {
    settings();
    check();
  } catch (error) {
    return fail(error);
  }
  if (!chosen().length && !(await loadModels())) return;
  $("stale").hidden = true;
  const running = answers.run(question(), chosen());
  const top = $("answer").getBoundingClientRect().top;
  if (top < 0 || top > window.innerHeight * 0.7) $("answer").scrollIntoView({ block: "start" });
  await running;
}

function showBusy() {
  const busy = answers.isBusy();
  $("stop").disabled = !busy;
  $("steps").setAttribute("aria-busy", busy);
}

// ---- Links and code

function share() {
  const fields = Object.fromEntries(SETTINGS.map((name) => [name, $(name).value]));
  const state = { ...question(), models: chosen(), settings: fields, answers: answers.answers() };
  const whole = state.answers.length ? "with its answers" : "without an answer";
  history.replaceState(null, "", `#${encode(state)}`);
  $("link").value = location.href;
  $("link-field").hidden = false;
  copy(location.href).then((done) => {
    note(done ? `The link to this question is copied, ${whole}.` : `Copy the link below: it holds this question ${whole}.`);
    if (!done) $("link").select();
  });
}

function open() {
  const fragment = location.hash.slice(1);
  if (!fragment) return false;
  try {
    restore(decode(fragment));
    return true;
  } catch (error) {
    $("error").textContent = `The link cannot be opened: ${error.message}.`;
    return false;
  }
}

function restore(state) {
  const missing = state.models.filter((name) => ![...$("model").options].some(({ value }) => value === name));
  setQuestion(state);
  for (const [place, id] of ["model", "second"].entries()) {
    const name = state.models[place] ?? "";
    if ([...$(id).options].some(({ value }) => value === name)) $(id).value = name;
  }
  for (const name of SETTINGS) $(name).value = state.settings[name] ?? "";
  $("settings").open = SETTINGS.some((name) => $(name).value);
  answers.setAnswers(question(), state.answers);
  $("error").textContent = missing.length ? `This server does not have the model of the link: ${missing.join(", ")}.` : "";
  showCode();
}

function showCode() {
  if (!$("code").open) return;
  try {
    const request = api.body($("model").value, question(), [], settings());
    $("curl").textContent = curl(request, api.key() !== "");
    $("python").textContent = python(request, api.key() !== "");
  } catch (error) {
    $("curl").textContent = $("python").textContent = error.message;
  }
}

// ---- Wiring

function wire() {
  answers.connect({ settings, fail, changed: showBusy });
  watch(() => {
    answers.follow(question());
    $("link-field").hidden = true;
    showCode();
  }, note);
  $("add").addEventListener("click", addInstruction);
  $("model").addEventListener("change", loadExamples);
  $("model").addEventListener("change", showLimit);
  $("example").addEventListener("change", takeExample);
  $("run").addEventListener("click", run);
  $("stop").addEventListener("click", answers.stop);
  $("share").addEventListener("click", share);
  $("link").addEventListener("focus", () => $("link").select());
  $("code").addEventListener("toggle", showCode);
  for (const id of [...SETTINGS, "model"]) $(id).addEventListener("input", showCode);
  for (const one of document.querySelectorAll("[data-copy]")) {
    one.addEventListener("click", async () => note((await copy($(one.dataset.copy).textContent)) ? "Copied." : "The browser does not allow copying; select the text."));
  }
  $("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    useKey();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    run();
  });
  window.addEventListener("hashchange", open);
}

async function useKey() {
  $("key-error").textContent = "";
  try {
    api.setKey($("key").value);
  } catch (error) {
    return fail(error);
  }
  if (!(await loadModels())) return;
  begin();
  $("input").focus();
}

/** Show the question of the link, if there is one. */
function begin() {
  if (!open() && !question().instructions.length) setQuestion({ input: "", instructions: [""], references: [""] });
}

wire();
setQuestion({ input: "", instructions: [""], references: [""] });
if (await loadModels()) begin();
