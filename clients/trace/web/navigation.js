// Where the reader is, and the ways to move. What is to be seen there, view.js shows.
"use strict";

let DATA, SCENARIOS, MODELS; // the recordings, the names of the scenarios and of the programs
const HERE = { scenario: "", model: "", step: 0, view: "one" };
let timer = null; // of the next step, while the recording plays
let writing = null; // of the address: browsers limit its changes per second

const byId = (name) => document.getElementById(name);
const clamped = (number, most) => Math.min(Math.max(number, 0), most);
const steps = (model = HERE.model) => DATA.recordings[HERE.scenario][model];
const actions = () => DATA.scenarios[HERE.scenario].actions;
const action = () => steps()[HERE.step].action;
const first = (number, model) => steps(model).findIndex((step) => step.action >= number);
const last = (number, model) => steps(model).findLastIndex((step) => step.action <= number);

const stepAt = (index, model = HERE.model) => {
  const step = steps(model)[index];
  return step ? { ...step, at: index } : null;
};

// The recordings are in the page as JSON, compressed by gzip, in base64.
async function unpack(text) {
  const packed = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const plain = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  DATA = await new Response(plain).json();
  [SCENARIOS, MODELS] = [Object.keys(DATA.scenarios), Object.keys(DATA.programs)];
  [HERE.scenario, HERE.model] = [SCENARIOS[0], MODELS[0]];
}

// Moves

function go(change) {
  Object.assign(HERE, change);
  HERE.step = clamped(HERE.step, steps().length - 1);
  clearTimeout(writing);
  writing = setTimeout(() => history.replaceState(null, "", link()), 300);
  draw();
}

function link() {
  const words = { scenario: HERE.scenario, model: HERE.model, step: HERE.step + 1 };
  if (HERE.view === "all") words.view = "all";
  return `#${new URLSearchParams(words)}`;
}

// An action is shown from its first step on; side by side, after its last.
function toAction(number) {
  const wanted = clamped(number, actions().length);
  go({ step: HERE.view === "all" || number > actions().length ? last(wanted) : first(wanted) });
}

function step(by) {
  if (HERE.view === "all") toAction(action() + by);
  else go({ step: HERE.step + by });
}

function moveByAction(by) {
  const inside = by < 0 && HERE.view === "one" && HERE.step > first(action());
  toAction(inside ? action() : action() + by);
}

// Another model or scenario shows the same action, so that they can be compared.
function change(to) {
  const now = action();
  Object.assign(HERE, to);
  toAction(Math.min(now, actions().length));
}

function read(hash) {
  const words = new URLSearchParams(hash.replace(/^#/, ""));
  if (SCENARIOS.includes(words.get("scenario"))) HERE.scenario = words.get("scenario");
  if (MODELS.includes(words.get("model"))) HERE.model = words.get("model");
  HERE.view = words.get("view") === "all" && MODELS.length > 1 ? "all" : "one";
  const number = Number.parseInt(words.get("step"), 10);
  const action = Number.parseInt(words.get("action"), 10);
  if (number > 0) go({ step: number - 1 });
  else if (action > 0) toAction(action);
  else go({ step: 0 });
}

// Playing: each step stays for as long as its sentence takes to read

function play() {
  const done = HERE.step >= steps().length - 1;
  if (timer || done) return stop();
  timer = setTimeout(() => { timer = null; step(1); play(); }, readingTime());
  return drawPlay();
}

function readingTime() {
  return HERE.view === "all" ? 4000 : 900 + 30 * byId("sentence").textContent.length;
}

function stop() {
  clearTimeout(timer);
  timer = null;
  drawPlay();
}

// Keys

const KEYS = {
  ArrowLeft: () => step(-1),
  ArrowRight: () => step(1),
  ArrowUp: () => moveByAction(-1),
  ArrowDown: () => moveByAction(1),
  Home: () => go({ step: 0 }),
  End: () => go({ step: steps().length - 1 }),
  " ": play,
};

function pressed(event) {
  const own = event.target.closest("select, dialog") || (event.key === " " && event.target.closest("button, summary"));
  if (own || event.altKey || event.ctrlKey || event.metaKey || !(event.key in KEYS)) return;
  event.preventDefault();
  if (event.key !== " ") stop();
  KEYS[event.key]();
}
