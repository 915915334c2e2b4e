// Where the reader is, and the ways to move. What is to be seen there, view.js shows.
"use strict";

let DATA, SCENARIOS, MODELS; // the recordings, the names of the scenarios and of the programs
const HERE = { scenario: "", model: "", step: 0, view: "one" };
let timer = null; // of the next step, while the recording plays
let speed = 1; // of playing
let voting = false; // what comes next is asked, and hidden
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
  voting = false;
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

// To the next step that has made a system call
function stepToCall() {
  const next = steps().findIndex((step, at) => at > HERE.step && step.calls.length);
  if (HERE.view === "one" && next > 0) go({ step: next });
}

const isOver = () => HERE.step === steps().length - 1 || (HERE.view === "all" && action() === actions().length);

// Ask what comes next, then show it
function vote() {
  if (voting) return step(1);
  voting = !isOver();
  return draw();
}

// The next model, or the one before
function turn(by) {
  const model = MODELS[MODELS.indexOf(HERE.model) + by];
  if (model && HERE.view === "one") change({ model });
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
  return (900 + 30 * byId("sentence").textContent.length) / speed;
}

function changeSpeed() {
  speed = speed === 4 ? 0.5 : 2 * speed;
  drawPlay();
}

function stop() {
  clearTimeout(timer);
  timer = null;
  drawPlay();
}

// Keys: {key: [its name, what it does, what to call that, the same side by side]}

const KEYS = {
  ArrowLeft: ["←", () => step(-1), "step back", "action back"],
  " ": ["space", play, "play"],
  ArrowRight: ["→", () => step(1), "step", "action"],
  ArrowUp: ["↑", () => moveByAction(-1), "action back", ""],
  ArrowDown: ["↓", () => moveByAction(1), "action", ""],
  c: ["c", stepToCall, "system call", ""],
  v: ["v", vote, "vote"],
  s: ["s", changeSpeed, "speed"],
  l: ["l", copyLink, "copy link"],
  p: ["p", savePicture, "save picture"],
  Home: ["Home", () => go({ step: 0 }), "start"],
  End: ["End", () => go({ step: steps().length - 1 }), "end"],
};

function use(key) {
  if (!" slp".includes(key)) stop();
  KEYS[key][1]();
}

function pressed(event) {
  const own = event.target.closest("select, dialog") || (event.key === " " && event.target.closest("button, summary"));
  if (own || event.altKey || event.ctrlKey || event.metaKey || !(event.key in KEYS)) return;
  event.preventDefault();
  use(event.key);
}

// A finger that moves sideways turns to another model.
function swiped(down, up) {
  const [right, lower] = [up.clientX - down.clientX, up.clientY - down.clientY];
  if (Math.abs(right) < 50 || Math.abs(right) < 2 * Math.abs(lower)) return;
  stop();
  turn(right < 0 ? 1 : -1);
}

// What a reader takes along

function copyLink() {
  const address = new URL(link(), location.href).href;
  navigator.clipboard.writeText(address).then(() => note("l", "copied"), () => prompt("copy this link", address));
}

// The page as it looks now, as an image that a canvas turns into a PNG
async function savePicture() {
  const page = document.documentElement.cloneNode(true);
  page.querySelectorAll("script, noscript, dialog, footer, #ask, [hidden]").forEach((part) => part.remove());
  const scrolled = [...document.querySelectorAll("main *")].filter((part) => part.scrollTop);
  for (const part of scrolled) { // a copy is not scrolled
    const copy = page.querySelector(`#${part.id} > *`);
    if (copy) copy.style.marginTop = `-${part.scrollTop}px`;
  }
  page.querySelector(`#scenario option:nth-child(${SCENARIOS.indexOf(HERE.scenario) + 1})`).setAttribute("selected", "");
  const [width, height] = [innerWidth, innerHeight];
  const drawing = make("div");
  drawing.innerHTML = `<svg width="${width}" height="${height}"><foreignObject width="100%" height="100%"/></svg>`;
  drawing.firstChild.firstChild.append(page);
  const text = new XMLSerializer().serializeToString(drawing.firstChild);
  const image = new Image();
  image.src = `data:image/svg+xml,${encodeURIComponent(text)}`;
  await image.decode();
  const canvas = Object.assign(document.createElement("canvas"), { width: 2 * width, height: 2 * height });
  canvas.getContext("2d").drawImage(image, 0, 0, 2 * width, 2 * height);
  const name = `${HERE.scenario}-${HERE.view === "all" ? `action-${action()}` : `${HERE.model}-${HERE.step + 1}`}.png`;
  Object.assign(document.createElement("a"), { href: canvas.toDataURL(), download: name }).click();
  note("p", "saved");
}

function note(key, text) { // on its button, for a moment
  drawKey(key, text);
  setTimeout(drawKeys, 1500);
}
