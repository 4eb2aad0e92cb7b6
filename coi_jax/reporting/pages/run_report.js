"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const COLORS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#000000", "#882255", "#44aa99", "#999933"];
const DASHES = ["", "7 3", "2 3", "9 3 2 3"];
const style = (run) => ({ stroke: COLORS[run % COLORS.length], dash: DASHES[Math.floor(run / COLORS.length) % DASHES.length] });
const tests = Object.keys(data.tests);
const label = (run) => data.runs[run].name;

/** Make an element with attributes and children; text is never read as HTML. */
function make(name, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "text", "g", "circle"].includes(name);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

function options(select, values) {
  select.replaceChildren(...values.map(([value, text]) => make("option", { value }, text)));
}

// ---- At which step do the models go wrong?

const stepsOf = (test) => Math.max(0, ...data.tests[test].chains.map((chain) => chain.steps.length));

const MEASURES = {
  exact: { title: "steps exactly right, %", of: ({ right }, k) => (right[k] === "1" ? 100 : 0) },
  rouge: { title: "ROUGE-L of the step's content", of: ({ rouge }, k) => rouge[k] },
};

/** Sum a measure over the answers of a run at step k, and over those whose step before is exactly right. */
function sumUp(run, test, k) {
  const measure = MEASURES[$("measure").value].of, sums = { value: 0, all: 0, after: 0, before: 0 };
  for (const answer of data.answers[run][test] || []) {
    const value = k < answer.right.length ? measure(answer, k) : null;
    if (value === null) continue;
    sums.all += 1;
    sums.value += value;
    if (k > 0 && answer.right[k - 1] === "1") {
      sums.before += 1;
      sums.after += value;
    }
  }
  return sums;
}

function heatCell(run, test, k) {
  const sums = sumUp(run, test, k);
  if (!sums.all) return make("td", { class: k ? "" : "first" }, "–");
  const mean = sums.value / sums.all, after = k && sums.before ? Math.round(sums.after / sums.before) : null;
  const press = () => { choose({ run, test, outcome: `wrong${k}` }); $("answers").scrollIntoView(); };
  const told = `${label(run)}, ${test}, step ${k + 1}, ${MEASURES[$("measure").value].title}: ${mean.toFixed(1)} of ${sums.all} answers` + (after === null ? "" : `; ${after} of ${sums.before} whose step before was right`);
  const cell = make("button", { type: "button", title: told, "aria-label": told, onclick: press, style: `background:hsl(203 75% ${96 - 0.56 * mean}%);color:${mean > 55 ? "#fff" : "#1c2430"}` }, String(Math.round(mean)));
  if (after !== null) cell.append(make("small", {}, `(${after})`));
  return make("td", { class: k ? "" : "first" }, cell);
}

function drawHeat() {
  const range = (count) => [...Array(count).keys()];
  const top = make("tr", {}, make("td"), ...tests.map((test) => make("th", { class: "test", colspan: Math.max(1, stepsOf(test)) }, test)));
  const below = make("tr", {}, make("th", {}, "run"), ...tests.flatMap((test) => range(stepsOf(test)).map((k) => make("th", { class: "step" }, `step ${k + 1}`))));
  const rows = data.runs.map((_, run) => make("tr", {}, make("th", { scope: "row" }, label(run)), ...tests.flatMap((test) => range(stepsOf(test)).map((k) => heatCell(run, test, k)))));
  $("heat").replaceChildren(make("thead", {}, top, below), make("tbody", {}, ...rows));
}

// ---- Answers

const chosen = { run: 0, other: "", test: tests[0], outcome: "all", words: "", place: 0 };
const PAGE = 200; // items of the list that are made at once
let found = [];

function outcomes(test) {
  const steps = [...Array(stepsOf(test)).keys()];
  return [["all", "all answers"], ["wrong", "some step wrong"], ["right", "all steps right"],
    ...steps.map((k) => [`first${k}`, `first wrong at step ${k + 1}`]), ...steps.map((k) => [`wrong${k}`, `step ${k + 1} wrong`]),
    ...steps.map((k) => [`right${k}`, `step ${k + 1} right`]), ["cut", "ended by the limit of new tokens"]];
}

function fits(answer, outcome) {
  const number = Number(outcome.replace(/\D/g, ""));
  if (outcome === "all") return true;
  if (outcome === "cut") return Boolean(answer.cut);
  if (outcome === "wrong") return answer.right.includes("0");
  if (outcome === "right") return !answer.right.includes("0");
  if (outcome.startsWith("first")) return answer.right.indexOf("0") === number;
  return answer.right[number] === (outcome.startsWith("right") ? "1" : "0");
}

function hasWords(answer, chain, words) {
  if (!words) return true;
  return [chain.id, chain.instruction, chain.input, ...chain.steps, ...answer.steps].join("\n").toLowerCase().includes(words);
}

/** Change what is shown, and show it. */
function choose(change) {
  Object.assign(chosen, change);
  if (!("place" in change)) chosen.place = 0;
  const answers = data.answers[chosen.run][chosen.test] || [];
  const chains = data.tests[chosen.test] ? data.tests[chosen.test].chains : [];
  if ("test" in change) options($("outcome"), outcomes(chosen.test));
  if (!outcomes(chosen.test).some(([value]) => value === chosen.outcome)) chosen.outcome = "all";
  for (const key of ["run", "other", "test", "outcome", "words"]) $(key).value = chosen[key];
  const words = chosen.words.trim().toLowerCase();
  found = answers.filter((answer) => fits(answer, chosen.outcome) && hasWords(answer, chains[answer.chain], words));
  $("count").textContent = `${found.length.toLocaleString("en")} of ${answers.length.toLocaleString("en")} answers.`;
  $("list").replaceChildren(...found.slice(0, PAGE).map(listItem));
  if (found.length > PAGE) $("list").append(moreItem(PAGE));
  show(chosen.place);
}

const signs = (right) => [...right].map((sign) => make("b", { class: sign === "1" ? "right" : "wrong" }, sign === "1" ? "✓" : "✗"));

function listItem(answer, place) {
  const chain = data.tests[chosen.test].chains[answer.chain];
  const text = make("span", { title: chain.instruction }, chain.input || chain.instruction || chain.id);
  return make("li", { onclick: () => show(place) }, make("code", {}, ...signs(answer.right)), text);
}

function moreItem(start) {
  const item = make("li", { onclick: () => { item.replaceWith(...found.slice(start, start + PAGE).map((answer, at) => listItem(answer, start + at)), ...(found.length > start + PAGE ? [moreItem(start + PAGE)] : [])); } }, `${found.length - start} more …`);
  return item;
}

function show(place) {
  chosen.place = Math.max(0, Math.min(place, found.length - 1));
  while (chosen.place >= $("list").children.length - (found.length > $("list").children.length ? 1 : 0) && $("list").lastChild && $("list").lastChild.textContent.endsWith("more …")) $("list").lastChild.click();
  [...$("list").children].forEach((item, at) => item.classList.toggle("current", at === chosen.place));
  const item = $("list").children[chosen.place];
  if (item && document.activeElement === $("list")) item.scrollIntoView({ block: "nearest" });
  $("detail").replaceChildren(...(found.length ? detail(found[chosen.place]) : [make("p", {}, "No answer fits.")]));
}

function detail(answer) {
  const chain = data.tests[chosen.test].chains[answer.chain];
  const other = chosen.other === "" ? null : (data.answers[chosen.other][chosen.test] || []).find((each) => each.chain === answer.chain);
  const heads = ["", "reference", label(chosen.run), ...(chosen.other === "" ? [] : [label(chosen.other)])];
  const count = Math.max(chain.steps.length, answer.steps.length, other ? other.steps.length : 0);
  const rows = [...Array(count).keys()].map((k) => stepRow(chain, [answer, ...(chosen.other === "" ? [] : [other])], k));
  return [
    make("p", { class: "soft" }, `${chain.id}${answer.cut ? " — the answer reached the limit of new tokens" : ""}`),
    ...(chain.instruction ? [make("h3", {}, "Instruction"), make("div", { class: "text" }, chain.instruction)] : []),
    ...(chain.input ? [make("h3", {}, "Input"), make("div", { class: "text" }, chain.input)] : []),
    make("table", {}, make("thead", {}, make("tr", {}, ...heads.map((text) => make("th", {}, text)))), make("tbody", {}, ...rows)),
  ];
}

function stepRow(chain, answers, k) {
  const reference = chain.steps[k];
  const cells = answers.map((answer) => (answer ? answerCell(answer, reference, k) : make("td", { class: "soft" }, "not answered")));
  const marked = reference === undefined ? make("td", { class: "soft" }, "no such step") : make("td", {}, ...differ(reference, (answers[0] && answers[0].steps[k]) || "", "missing"));
  return make("tr", {}, make("th", { scope: "row" }, `step ${k + 1}`), marked, ...cells);
}

function answerCell(answer, reference, k) {
  const output = answer.steps[k];
  if (output === undefined) return make("td", { class: "wrong" }, "✗ missing");
  const sign = answer.right[k] === "1" ? make("b", { class: "right" }, "✓ ") : make("b", { class: "wrong" }, "✗ ");
  return make("td", {}, sign, ...differ(output, reference || "", "extra"));
}

/** Return a text's words, those marked that a longest common subsequence with the other text does not have. */
function differ(text, other, name) {
  const words = text.split(/(\s+)/), others = other.split(/\s+/);
  const places = words.map((word, at) => (at % 2 ? -1 : at)).filter((at) => at >= 0);
  if (places.length * others.length > 250000) return [text];
  const common = commonWords(places.map((at) => words[at]), others);
  return words.map((word, at) => (at % 2 || !word || common.has(at / 2) ? word : make("mark", { class: name }, word)));
}

function commonWords(one, two) {
  const lengths = Array.from({ length: one.length + 1 }, () => new Uint16Array(two.length + 1));
  for (let i = one.length - 1; i >= 0; i--) {
    for (let j = two.length - 1; j >= 0; j--) lengths[i][j] = one[i] === two[j] ? lengths[i + 1][j + 1] + 1 : Math.max(lengths[i + 1][j], lengths[i][j + 1]);
  }
  const kept = new Set();
  for (let i = 0, j = 0; i < one.length && j < two.length;) {
    if (one[i] === two[j]) { kept.add(i); i++; j++; }
    else if (lengths[i + 1][j] >= lengths[i][j + 1]) i++;
    else j++;
  }
  return kept;
}

// ---- Curves

const WIDTH = 540, HEIGHT = 300, LEFT = 52, RIGHT = 12, TOP = 10, BOTTOM = 40;

function ticks(low, high, count = 5) {
  const rough = (high - low || 1) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, at) => Number(((first + at) * step).toPrecision(10)));
}

function plot(kind) {
  const lines = data.runs.map((run, at) => [at, run.curves[kind] || []]).filter(([, points]) => points.length);
  if (!lines.length) return null;
  const xs = lines.flatMap(([, points]) => points.map(([step]) => step)), ys = lines.flatMap(([, points]) => points.map(([, loss]) => loss));
  const [highX, lowY, highY] = [Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const x = (step) => LEFT + ((WIDTH - LEFT - RIGHT) * step) / (highX || 1);
  const y = (loss) => HEIGHT - BOTTOM - ((HEIGHT - TOP - BOTTOM) * (loss - lowY)) / (highY - lowY || 1);
  const svg = make("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, width: WIDTH, role: "img", "aria-label": `${kind} loss by step` });
  for (const tick of ticks(lowY, highY)) svg.append(make("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(tick), y2: y(tick), stroke: "#e3e7ec" }), make("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, String(tick)));
  for (const tick of ticks(0, highX)) svg.append(make("text", { x: x(tick), y: HEIGHT - BOTTOM + 18, "text-anchor": "middle" }, tick.toLocaleString("en")));
  svg.append(make("text", { x: (LEFT + WIDTH) / 2, y: HEIGHT - 4, "text-anchor": "middle" }, "optimizer step"));
  for (const [run, points] of lines) svg.append(line(run, points.map(([step, loss]) => [x(step), y(loss)])));
  return make("figure", { style: "margin:0" }, make("h3", {}, `${kind[0].toUpperCase()}${kind.slice(1)} loss per target token`), svg, legend(lines.map(([run]) => run)));
}

function line(run, points) {
  const { stroke, dash } = style(run);
  const path = points.length === 1 ? `M${points[0]}h.1` : "M" + points.map((point) => point.map((value) => value.toFixed(1)).join(",")).join("L");
  const hide = (hidden) => () => svgLines().forEach((each) => each.classList.toggle("dim", hidden && each.dataset.run !== String(run)));
  const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
  title.textContent = label(run);
  return make("path", { d: path, class: "line", stroke, "stroke-dasharray": dash, "stroke-linecap": "round", "data-run": run, onmouseenter: hide(true), onmouseleave: hide(false) }, title);
}

const svgLines = () => [...document.querySelectorAll("path[data-run]")];

function legend(runs) {
  return make("ul", { class: "legend" }, ...runs.map((run) => {
    const { stroke, dash } = style(run);
    return make("li", {}, make("svg", { width: 30, height: 8 }, make("line", { x1: 1, x2: 29, y1: 4, y2: 4, stroke, "stroke-width": 2.5, "stroke-dasharray": dash })), label(run));
  }));
}

// ---- Settings and scores

/** Return the axes of the sweep: what varies, the last loss, and the score of each test set. */
function axes(metric) {
  const fields = [...new Set(data.runs.flatMap((run) => Object.keys(run.fields)))];
  const last = (run) => (run.curves.training ? run.curves.training.at(-1)[1] : null);
  return [
    { name: "arm", values: data.runs.map((run) => run.arm) },
    { name: "seed", values: data.runs.map((run) => run.seed) },
    ...fields.map((name) => ({ name, values: data.runs.map((run) => run.fields[name]) })),
    { name: "last loss", values: data.runs.map(last) },
    ...tests.map((test) => ({ name: test, values: data.runs.map((run) => (run.scores[test] ? run.scores[test][metric] ?? null : null)) })),
  ].filter(({ name, values }) => tests.includes(name) || new Set(values.map(String)).size > 1);
}

function placeOf({ values }) {
  const present = values.filter((value) => value !== null && value !== undefined);
  if (present.every((value) => typeof value === "number")) {
    const [low, high] = [Math.min(...present), Math.max(...present)];
    const marks = low === high ? [low] : [low, (low + high) / 2, high];
    return { at: (value) => (value === null || value === undefined ? null : low === high ? 0.5 : (value - low) / (high - low)), marks: marks.map((mark) => [Number(mark.toPrecision(3)), mark]) };
  }
  const names = [...new Set(values.map(String))];
  return { at: (value) => (names.length === 1 ? 0.5 : names.indexOf(String(value)) / (names.length - 1)), marks: names.map((name) => [name.length > 16 ? `${name.slice(0, 15)}…` : name, name]) };
}

function drawParallel() {
  const all = axes($("metric").value), gap = Math.max(110, Math.min(190, 1100 / Math.max(1, all.length))), height = 280;
  const svg = make("svg", { viewBox: `0 0 ${gap * all.length + 30} ${height + 50}`, width: gap * all.length + 30, role: "img", "aria-label": "a line for each run through its settings and scores" });
  const places = all.map(placeOf), x = (at) => 50 + gap * at, y = (share) => 30 + height * (1 - share);
  all.forEach(({ name }, at) => {
    svg.append(make("line", { x1: x(at), x2: x(at), y1: y(0), y2: y(1), stroke: "#9aa5b1" }), make("text", { x: x(at), y: 14, "text-anchor": "middle", style: "font-weight:600" }, name.length > 22 ? `…${name.slice(-21)}` : name));
    for (const [text, value] of places[at].marks) svg.append(make("text", { x: x(at) + 5, y: y(places[at].at(value)) - 4 }, String(text)));
  });
  data.runs.forEach((_, run) => {
    const points = all.map((axis, at) => [x(at), places[at].at(axis.values[run])]).filter(([, share]) => share !== null).map(([left, share]) => [left, y(share)]);
    if (points.length) svg.append(line(run, points));
  });
  $("parallel").replaceChildren(make("div", { class: "scroll" }, svg), legend(data.runs.map((_, run) => run)));
}

// ---- Tables

function drawTables() {
  const grids = Object.entries(data.tables).map(([title, [head, ...rows]]) => make("div", { class: "scroll" }, make("h3", {}, title), make("table", {}, make("thead", {}, make("tr", {}, ...head.map((text) => make("th", {}, text)))), make("tbody", {}, ...rows.map(([first, ...rest]) => make("tr", {}, make("th", { scope: "row" }, first), ...rest.map((text) => make("td", {}, text))))))));
  $("grids").replaceChildren(...grids);
  $("notes").replaceChildren(...data.notes.map((note) => make("li", {}, note)), ...data.faults.map((fault) => make("li", { class: "wrong" }, `Left out: ${fault}`)));
}

// ---- The page

const KEYS = { j: 1, k: -1, ArrowDown: 1, ArrowUp: -1 };
document.addEventListener("keydown", (event) => {
  const writes = ["INPUT", "SELECT", "TEXTAREA"].includes(document.activeElement.tagName);
  const arrows = event.key.startsWith("Arrow") && document.activeElement !== $("list");
  if (writes || arrows || event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
  event.preventDefault();
  show(chosen.place + KEYS[event.key]);
});
for (const key of ["run", "other", "test", "outcome", "words"]) $(key).addEventListener("input", () => choose({ [key]: key === "run" ? Number($(key).value) : $(key).value }));
$("metric").addEventListener("input", drawParallel);

const answers = data.answers.reduce((sum, byTest) => sum + Object.values(byTest).reduce((all, list) => all + list.length, 0), 0);
$("summary").textContent = `${data.runs.length} run${data.runs.length === 1 ? "" : "s"}, ${tests.length} test set${tests.length === 1 ? "" : "s"}, ${answers.toLocaleString("en")} answers.`;
options($("run"), data.runs.map((_, run) => [run, label(run)]));
options($("other"), [["", "none"], ...data.runs.map((_, run) => [run, label(run)])]);
options($("test"), tests.map((test) => [test, test]));
const metrics = [...new Set(data.runs.flatMap((run) => Object.values(run.scores).flatMap(Object.keys)))];
options($("metric"), metrics.map((metric) => [metric, metric]));
$("metric").value = metrics.includes("content_exact_match") ? "content_exact_match" : metrics[0];
options($("measure"), Object.entries(MEASURES).map(([name, { title }]) => [name, title]));
$("measure").addEventListener("input", drawHeat);
drawHeat();
choose({ test: tests[0] });
const plots = ["training", "validation"].map(plot).filter(Boolean);
$("plots").replaceChildren(...(plots.length ? plots : [make("p", { class: "soft" }, "None of these runs was trained.")]));
drawParallel();
drawTables();
