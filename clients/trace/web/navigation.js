// Where the reader is, and how one gets elsewhere. What is to be seen there, view.js shows.
"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);
const STORIES = Object.keys(DATA.stories);
const MODELS = Object.keys(DATA.programs);
const HERE = { story: STORIES[0], model: MODELS[0], step: 0, view: "one" };
let timer = null; // of the next step, while it plays
let writing = null; // of the address: browsers allow no more than some changes in a second

const byId = (name) => document.getElementById(name);
const clamped = (number, most) => Math.min(Math.max(number, 0), most);
const steps = (model = HERE.model) => DATA.recordings[HERE.story][model];
const acts = () => DATA.stories[HERE.story].acts;
const act = () => steps()[HERE.step].act;
const first = (number, model) => steps(model).findIndex((step) => step.act >= number);
const last = (number, model) => steps(model).findLastIndex((step) => step.act <= number);

// A step with its values in their places: in the data each value stands once, in the pool.
function stepAt(index, model = HERE.model) {
  const step = steps(model)[index];
  if (!step) return null;
  const rows = (places) => places?.map((place) => DATA.pool[place]);
  const kernel = DATA.pool[step.kernel];
  return {
    ...step,
    at: index,
    changed: step.changed ?? [],
    variables: step.variables === undefined ? null : DATA.pool[step.variables],
    threads: rows(DATA.pool[step.threads]),
    clients: rows(DATA.pool[step.clients]),
    kernel: { ...kernel, connections: rows(kernel.connections), epoll: rows(kernel.epoll) },
  };
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
  const words = { story: HERE.story, model: HERE.model, step: HERE.step + 1 };
  if (HERE.view === "all") words.view = "all";
  return `#${new URLSearchParams(words)}`;
}

// An action is seen from its first step on; side by side, after its last.
function toAct(number) {
  const wanted = clamped(number, acts().length);
  go({ step: HERE.view === "all" || number > acts().length ? last(wanted) : first(wanted) });
}

function step(by) {
  if (HERE.view === "all") toAct(act() + by);
  else go({ step: HERE.step + by });
}

function leap(by) {
  const inside = by < 0 && HERE.view === "one" && HERE.step > first(act());
  toAct(inside ? act() : act() + by);
}

// Another model or story shows the same action, so that one compares what it does there.
function change(to) {
  const now = act();
  Object.assign(HERE, to);
  toAct(Math.min(now, acts().length));
}

function read(hash) {
  const words = new URLSearchParams(hash.replace(/^#/, ""));
  if (STORIES.includes(words.get("story"))) HERE.story = words.get("story");
  if (MODELS.includes(words.get("model"))) HERE.model = words.get("model");
  HERE.view = words.get("view") === "all" && MODELS.length > 1 ? "all" : "one";
  const number = Number.parseInt(words.get("step"), 10);
  const action = Number.parseInt(words.get("act"), 10);
  if (number > 0) go({ step: number - 1 });
  else if (action > 0) toAct(action);
  else go({ step: 0 });
}

// Playing: each step stays as long as one needs to read its sentence

function play() {
  const done = HERE.step >= steps().length - 1;
  if (timer || done) return stop();
  timer = setTimeout(() => { timer = null; step(1); play(); }, pause());
  return drawPlay();
}

function pause() {
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
  ArrowUp: () => leap(-1),
  ArrowDown: () => leap(1),
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
