// What is to be seen at one place of a recording. navigation.js says which place that is.
"use strict";

// Small parts

function make(tag, looks = "", ...inside) {
  const made = document.createElement(tag);
  made.className = looks;
  made.append(...inside.filter((part) => part !== null && part !== undefined && part !== ""));
  return made;
}

function labelled(part, words) { // for screen readers
  part.setAttribute("role", "img");
  part.setAttribute("aria-label", words);
  return part;
}

const count = (number) => number.toLocaleString("en");
const bytes = (number) => `${count(number)} ${number === 1 ? "byte" : "bytes"}`;
const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
const changed = (now, before) => (same(now, before) ? "" : " changed");
const badge = (number) => labelled(make("span", "client", String(number)), `client ${number}`);
const badges = (numbers) => numbers.map(badge);
const code = (model) => `model-${MODELS.indexOf(model)}`;

// [1, 2, 3, 5] as "1–3, 5"
function ranges(numbers) {
  const runs = [];
  for (const number of numbers) {
    const run = runs.at(-1);
    if (run && run[1] === number - 1) run[1] = number;
    else runs.push([number, number]);
  }
  return runs.map(([from, to]) => (from === to ? from : `${from}–${to}`)).join(", ");
}

// A thread that serves a client is named after it; it must not be taken for the client.
const full = (name) => name.replace(/^client /, "thread of client ");

// The names of threads in short: "main, t1–9"
function together(names) {
  const numbers = names.map((name) => /^client (\d+)$/.exec(name)?.[1]);
  const clients = numbers.filter(Boolean).map(Number).sort((one, other) => one - other);
  const others = names.filter((_, at) => !numbers[at]);
  const all = clients.length ? [`t${ranges(clients)}`] : [];
  return [...others, ...all].join(", ");
}

// Children of a part that stay the same elements from step to step, by their keys
function keyed(parent, keys, create) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  const now = keys.map((key) => {
    const child = old.get(String(key)) ?? create(key);
    child.dataset.key = key;
    return child;
  });
  if (!same(keys.map(String), [...old.keys()])) parent.replaceChildren(...now);
  return now;
}

// The program

const WORDS = new RegExp(
  String.raw`(#.*$)|([bf]?"(?:[^"\\]|\\.)*")|\b(def|class|while|for|in|if|elif|else|try|except|with|as|` +
  String.raw`return|import|from|not|and|or|pass|raise|lambda|True|False|None|async|await|yield)\b`, "g");

function coloured(text, docstring) {
  if (docstring) return [make("i", "", text)];
  const parts = [];
  let at = 0;
  for (const found of text.matchAll(WORDS)) {
    const looks = found[1] ? "note" : found[2] ? "text" : "word";
    parts.push(text.slice(at, found.index), make("span", looks, found[0]));
    at = found.index + found[0].length;
  }
  return [...parts, text.slice(at)];
}

function drawProgram() {
  const source = byId("source");
  if (source.dataset.model === HERE.model) return;
  source.dataset.model = HERE.model;
  let inside = false;
  source.replaceChildren(...DATA.programs[HERE.model].lines.map((text, at) => {
    const quotes = text.split('"""').length - 1;
    const line = codeLine(text, at + 1, inside || quotes > 0);
    if (quotes === 1) inside = !inside;
    return line;
  }));
  byId("program-title").replaceChildren(
    make("b", "mark", HERE.model), ` ${DATA.programs[HERE.model].sentence}`);
  // In letters of code; those of a docstring or a comment are narrower.
  const lengths = [...source.children].map(({ lastChild: line }) => line.indent + [...line.childNodes].reduce(
    (sum, part) => sum + part.textContent.length * (part.matches?.("i, .note") ? 0.85 : 1), 0));
  source.style.setProperty("--longest", Math.max(...lengths));
}

function codeLine(text, number, docstring) {
  const indent = text.length - text.trimStart().length;
  const line = make("code", "", ...coloured(text.trimStart(), docstring));
  line.style.setProperty("--indent", `${indent}ch`);
  line.indent = indent;
  return make("li", "", make("span", "marks"), make("span", "number", String(number)), line);
}

// {line: {blocked: names, awake: names}}
function threadsByLine(step) {
  const found = new Map();
  for (const thread of step.threads.filter((one) => one.line)) { // the others are in another file
    if (!found.has(thread.line)) found.set(thread.line, { awake: [], blocked: [] });
    found.get(thread.line)[thread.call ? "blocked" : "awake"].push(thread.name);
  }
  return found;
}

function markOf(names, blocked) {
  const label = together(names);
  const mark = make("b", blocked ? "mark blocked" : "mark", blocked ? `zz ${label}` : label);
  return labelled(mark, `${names.map(full).join(", ")} ${blocked ? "blocked" : "next"} here`);
}

// The thread that has executed a line, unless it is still there
function executorMark(step, here) {
  if (here?.awake.includes(step.name)) return [];
  return [labelled(make("b", "mark did", together([step.name])), `${full(step.name)} has executed it`)];
}

const marksOf = ({ awake, blocked }) => [
  awake.length ? markOf(awake, false) : null,
  blocked.length ? markOf(blocked, true) : null,
];

// The line that a step has executed. A thread that blocks is still in it; a call from another file is of none.
function executedIn(step) {
  const fromOutside = step.kind === "call" && step.line === step.next_line;
  return step.kind === "sleep" || fromOutside ? null : step.line;
}

function drawLines(step) {
  const found = threadsByLine(step);
  const executed = executedIn(step);
  const here = found.get(executed);
  if (here && ["return", "exception"].includes(step.kind)) { // it is there, but its next line is elsewhere
    here.awake = here.awake.filter((name) => name !== step.name);
  }
  [...byId("source").children].forEach((line, at) => {
    const here = found.get(at + 1);
    line.className = at + 1 === executed ? "executed" : "";
    if (here?.awake.length) line.classList.add("next");
    else if (here?.blocked.length) line.classList.add("resting");
    if (at + 1 === executed) line.setAttribute("aria-current", "step");
    else line.removeAttribute("aria-current");
    line.firstChild.replaceChildren(...(at + 1 === executed ? executorMark(step, here) : []),
      ...(here ? marksOf(here).filter(Boolean) : []));
  });
  const id = threadInFocus(step);
  const acting = step.threads.find((thread) => thread.id === id);
  show(byId("source"), executed ?? acting?.line, acting?.line);
  pointTo(acting, executed);
  byId("short").hidden = !steps().some((one) => one.name?.startsWith("client"));
}

// Where a thread goes on, if that is too far from the line that it has executed to be seen with it
function pointTo(acting, executed) {
  const [from, to] = [executed, acting?.line].map((line) => byId("source").children[line - 1]);
  const over = !acting || acting.call || doing(acting, stepAt(HERE.step)) !== `next: line ${acting.line}`;
  if (over || !from || inSight(byId("source"), to)) return;
  const way = make("b", "ahead", `${acting.line > executed ? "↓" : "↑"}${acting.line}`);
  from.firstChild.append(labelled(way, `${full(acting.name)} goes on at line ${acting.line}`));
}

const inSight = (list, line) => line.offsetTop >= list.scrollTop - 1 &&
  line.offsetTop + line.offsetHeight <= list.scrollTop + list.clientHeight + 1;

// Scroll a list so that a line is seen, with what comes next if that is near
function show(list, number, next) {
  const line = list.children[number - 1];
  if (!line) return;
  const ends = (one) => [one.offsetTop, one.offsetTop + one.offsetHeight];
  const both = [line, list.children[next - 1] ?? line].flatMap(ends);
  const near = Math.max(...both) - Math.min(...both) < list.clientHeight * 0.9;
  const places = near ? both : ends(line);
  const [top, end] = [Math.min(...places), Math.max(...places)];
  if (top >= list.scrollTop && end <= list.scrollTop + list.clientHeight) return;
  const wanted = (top + end - list.clientHeight) / 2;
  const whole = [...list.children].find((one) => one.offsetTop >= wanted); // no line is cut at the top
  list.scrollTop = Math.min(whole.offsetTop, top);
}

// Scroll a list, and nothing around it, so that a part is seen below the list's sticky title
function reveal(list, part) {
  const [top, end] = [part.offsetTop - 40, part.offsetTop + part.offsetHeight];
  if (end > list.scrollTop + list.clientHeight) list.scrollTop = end - list.clientHeight;
  if (top < list.scrollTop) list.scrollTop = top;
}

// The threads and their variables

// The last step, up to one, that shows a thread's variables
function known(thread, from = HERE.step) {
  return steps().slice(0, from + 1).findLast((step) => step.thread === thread && step.variables);
}

// The thread to look at: it acts, or is about to, or was the last to act
function threadInFocus(step) {
  const ids = step.threads.map((thread) => thread.id);
  const awake = step.threads.find((thread) => !thread.call)?.id;
  const last = steps().slice(0, HERE.step + 1).findLast((one) => ids.includes(one.thread));
  return ids.includes(step.thread) ? step.thread : awake ?? last?.thread ?? ids[0];
}

function createThread() {
  return make("details", "", make("summary"), make("p", "function"), make("dl"));
}

// A line that has returned or raised is done; the next step shows which one comes next.
function doing(thread, step) {
  if (thread.call) return `blocked in ${thread.call}(${thread.fd ?? ""})`;
  const over = { return: `leaves ${thread.function}()`, exception: `line ${thread.line} raised` };
  const did = thread.id === step.thread && over[step.kind];
  return did || `next: line ${thread.line}`;
}

function drawThreads(step) {
  const acting = threadInFocus(step);
  const turned = byId("threads").dataset.acting !== String(acting); // else what a reader opened stays open
  byId("threads").dataset.acting = acting;
  keyed(byId("threads"), step.threads.map((thread) => thread.id), createThread).forEach((part, at) => {
    const thread = step.threads[at];
    const [summary, title, list] = part.children;
    if (turned) part.open = thread.id === acting;
    part.className = thread.id === step.thread ? "acting" : "";
    const name = step.threads.length > 5 ? together([thread.name]) : full(thread.name); // as there is room
    summary.replaceChildren(
      make("b", thread.call ? "mark blocked" : "mark", name), make("span", "", doing(thread, step)));
    const last = thread.line && known(thread.id);
    title.textContent = last ? `in ${last.function}()` : "";
    const news = thread.id === step.thread ? step.changed : [];
    list.replaceChildren(...variables(last?.variables ?? {}, news));
  });
  const first = byId("threads").querySelector(".acting dd.changed");
  if (first) reveal(byId("threads"), first);
}

function variables(values, changed) {
  return Object.entries(values).flatMap(([name, value]) => {
    const looks = changed.includes(name) ? "changed" : "";
    const parts = [make("dt", looks, name), make("dd", looks, String(value))];
    if (name.includes(".")) parts.forEach((part) => part.classList.add("field"));
    if (looks) parts[0].setAttribute("aria-label", `${name}, changed`);
    return parts;
  });
}

// The kernel

function drawKernel(root, step, before, model) {
  const now = step.kernel;
  const old = before?.kernel ?? now;
  const [arrivals, epoll, rows, held] = keyed(root, ["arrivals", "epoll", "rows", "held"],
    (key) => make(key === "rows" ? "ul" : "div", key));
  arrivals.replaceChildren(...drawArrivals(now, old));
  epoll.hidden = !now.epoll;
  epoll.replaceChildren(...(now.epoll ? sets(now, old, model) : []));
  drawConnections(rows, now, old);
  held.replaceChildren(...descriptors(now, old, model));
}

const numbers = (kernel, test) => kernel.connections.filter(test).map((one) => one.client);
const hasSynSent = (one) => one.client_state === "SYN-SENT";

function drawArrivals(now, old) {
  const outside = numbers(now, hasSynSent);
  const queued = numbers(now, (one) => one.queued);
  const empty = Math.max(now.limit, queued.length) - queued.length;
  const places = make("ol", "places",
    ...Array.from({ length: empty }, () => make("li")),
    ...queued.toReversed().map((number) => make("li", "", badge(number))));
  const syn = make("div", `syn${changed(outside, numbers(old, hasSynSent))}`,
    make("h3", "", "SYN-SENT"), ...(outside.length ? badges(outside) : ["none"]));
  const full = now.queue >= now.limit ? ", full" : "";
  const queue = make("div", `queue${changed(now.queue, old.queue)}`,
    make("h3", "", "accept queue ", make("span", "zh", "(全连接队列) "), make("b", "", `${now.queue} of ${now.limit}${full}`)), places);
  return [syn, make("span", "to", "→"), queue, make("span", "to", "→ accept()")];
}

// The owner of a descriptor: a client's number, or what it is
function owners(kernel, model) {
  const found = new Map([[0, "in"], [1, "out"], [2, "err"]]);
  for (const [fd, what] of kinds(model)) found.set(fd, what);
  for (const one of kernel.connections) if (one.fd !== null) found.set(one.fd, one.client);
  return found;
}

// Which descriptors listen or are epoll objects, from the program's variables
function kinds(model) {
  const texts = steps(model).flatMap((step) => Object.values(step.variables ?? {}));
  const found = texts.join("\n").matchAll(/(listening|epoll)(?: socket)? \(descriptor (\d+)\)/g);
  return [...found].map(([, what, fd]) => [Number(fd), what]);
}

function chip(fd, owner, looks, more = "") {
  const of = typeof owner === "number" ? badge(owner) : (owner ?? "");
  return make("span", `chip${looks}`, make("b", "", String(fd)), of, more && make("em", "", more));
}

function sets(now, old, model) {
  const found = owners(now, model);
  const before = new Map((old.epoll ?? []).map((row) => [row.fd, row]));
  const interest = now.epoll.map((row) => chip(row.fd, found.get(row.fd),
    changed(row.events, before.get(row.fd)?.events), row.events || "no events"));
  const ready = now.epoll.filter((row) => row.ready).map((row) => chip(row.fd, found.get(row.fd),
    ` ready${changed(row.ready, before.get(row.fd)?.ready)}`, row.events));
  return [
    make("div", "interest", make("h3", "", "epoll: interest list"), ...(interest.length ? interest : ["empty"])),
    make("span", "to", "→"),
    make("div", "list", make("h3", "", "ready list"), ...(ready.length ? ready : ["empty"])),
  ];
}

function descriptors(now, old, model) {
  const found = owners(now, model);
  const chips = now.descriptors.map((fd) =>
    chip(fd, found.get(fd), old.descriptors.includes(fd) ? (fd < 3 ? " plain" : "") : " changed"));
  return [make("h3", "", "server's descriptors ", make("span", "zh", "(描述符)")), ...chips];
}

// The longest bar: the most that any buffer holds in this scenario, in bytes, so that models can be compared
const longest = {};
function scale() {
  longest[HERE.scenario] ??= Math.max(1, ...MODELS.flatMap((model) => steps(model).flatMap((step) =>
    step.kernel.connections.flatMap((one) => one.buffers))));
  return longest[HERE.scenario];
}

const BUFFERS = ["client's send buffer", "server's receive buffer", "server's send buffer", "client's receive buffer"];

function createConnection(number) {
  const bars = [0, 1, 3, 2].map((which) => { // in the order in which they are seen
    const bar = make("span", "bar", make("i"), make("span"));
    bar.dataset.which = which;
    return bar;
  });
  const buffers = make("span", "buffers", bars[0], make("span", "way", "→"), bars[1],
    bars[2], make("span", "way", "←"), bars[3]);
  return make("li", "connection", make("span", "end", badge(number), make("span")), buffers,
    make("span", "end server-end"));
}

const header = () => make("li", "header connection", make("span"),
  make("span", "buffers", make("span", "", "client's kernel"), make("span"), make("span", "", "server's kernel")));

// With many clients, those with empty buffers share one line.
function drawConnections(list, now, old) {
  const before = (one) => old.connections.find((other) => other.client === one.client);
  const alive = now.connections.filter((one) => one.client_state || one.server_state || one.in_program);
  const shown = (one) => alive.length < 5 || !(isQuiet(one) || hasSynSent(one));
  const moved = alive.filter((one) => !shown(one) && !same(one, before(one)));
  const listed = alive.filter((one) => shown(one) || (moved.length < 4 && moved.includes(one)));
  const rest = alive.filter((one) => !listed.includes(one) && !hasSynSent(one)).map((one) => one.client);
  const others = { header, rest: () => make("li", "rest") };
  const keys = [...(listed.length ? ["header"] : []), ...listed.map((one) => one.client), ...(rest.length ? ["rest"] : [])];
  const rows = keyed(list, keys, (key) => (others[key] ?? createConnection)(key));
  listed.forEach((one, at) => drawConnection(rows[at + 1], one, before(one)));
  if (!rest.length) return;
  rows.at(-1).className = moved.length < 4 ? "rest" : "rest changed";
  rows.at(-1).replaceChildren(...badges(rest), " ESTABLISHED, buffers empty");
}

const isQuiet = (one) => one.client_state === "ESTABLISHED" && one.server_state === "ESTABLISHED" && !held(one);
const held = (one) => (one.in_program ?? 0) + one.buffers.reduce((sum, number) => sum + number, 0);
const placeOf = (one) => (one?.queued ? "in accept queue" : one?.fd ? `descriptor ${one.fd}` : "");

function drawConnection(row, one, was) {
  const [clientEnd, buffers, serverEnd] = row.children;
  clientEnd.lastChild.textContent = one.client_state ?? "gone";
  clientEnd.lastChild.className = `state${changed(one.client_state, was?.client_state)}`;
  const place = make("span", `place${changed(placeOf(one), placeOf(was))}`, placeOf(one));
  const [now, old] = [one.in_program ?? 0, was?.in_program ?? 0]; // bytes that the kernel has not taken
  const chip = make("span", `in-program${changed(now, old)}`, "in the program: ", make("b", "", count(now)));
  serverEnd.replaceChildren(...(placeOf(one) ? [place] : []),
    make("span", `state${changed(one.server_state, was?.server_state)}`, one.server_state ?? "no socket"),
    ...(now ? [labelled(chip, `client ${one.client}: in the program, ${bytes(now)}`)] : []));
  buffers.querySelectorAll(".bar").forEach((bar) => drawBar(bar, one, was));
}

function drawBar(bar, one, was) {
  const which = Number(bar.dataset.which);
  const number = one.buffers[which];
  const before = was ? was.buffers[which] : 0;
  bar.className = `bar${number ? " filled" : ""}${number === before ? "" : " changed"}`;
  bar.firstChild.style.setProperty("--old", `${100 * Math.min(1, before / Math.max(1, number))}%`);
  bar.firstChild.style.width = number ? `max(4px, ${100 * number / scale()}%)` : "0";
  bar.lastChild.replaceChildren(make("span", "verb", BUFFERS[which].includes("send") ? "send " : "recv "), make("b", "", number ? count(number) : ""));
  labelled(bar, `client ${one.client}: ${BUFFERS[which]}, ${bytes(number)}`);
}

// The clients

// b'bob' as “bob”; of a long text its length
function words(text) {
  const found = /^b(['"])(.*)\1(?: \(([\d,]+) bytes\))?$/.exec(text);
  if (!found) return text;
  return found[3] ? `${found[3]} bytes` : found[2] && `“${found[2]}”`;
}

// Whether a client has stopped reading, and not begun again
function hasStoppedReading(number, index, model) {
  const last = steps(model).slice(0, index + 1).findLast((step) =>
    step.actors.includes(number) && ["stops reading", "reads"].includes(step.does));
  return last?.does === "stops reading";
}

function statusOf(one, step, model) {
  const row = step.kernel.connections.find((other) => other.client === one.client);
  const asked = one.sent !== "b''";
  if (one.left) return [one.left + (asked && one.received === "b''" ? " unserved" : ""), "gone"];
  if (hasStoppedReading(one.client, step.at, model)) return ["does not read", "waits"];
  if (row && hasSynSent(row)) return ["not connected yet (SYN-SENT)", asked ? "waits" : ""];
  if (row?.queued) return ["in the accept queue", asked ? "waits" : ""];
  if (one.received !== "b''" && row && held(row)) return ["served in part", "waits"];
  if (one.received !== "b''") return ["served", "served"];
  if (row?.buffers[3]) return ["answer not read yet", "waits"];
  return asked ? ["no answer yet", "waits"] : ["silent", ""];
}

// How many bytes of a client's messages, and of the answers to it, are in the two kernels: two texts
function inKernels(one, step) {
  const row = step.kernel.connections.find((other) => other.client === one.client);
  const known = row && !one.left && HERE.view === "one";
  const [sent, arrived, answered, returned] = known ? row.buffers : [0, 0, 0, 0];
  return [[sent + arrived, ""], [answered + returned, " more"]].map(([number, more]) =>
    number ? ` (${count(number)}${more} bytes in the kernels)` : "");
}

function drawClients(list, step, model, before) {
  const many = step.clients.length > 4;
  list.classList.toggle("many", many);
  const cards = new Map(); // of many clients, those with the same text share one card
  for (const one of step.clients) {
    const was = before?.clients.find((other) => other.client === one.client);
    const [sent, received] = [words(one.sent), words(one.received)];
    const [text, looks] = statusOf(one, step, model);
    const inside = inKernels(one, step);
    const stays = was && same([one, text, inside], [was, statusOf(was, before, model)[0], inKernels(was, before)]);
    const news = stays ? "" : "changed";
    const key = many && !sent && !received ? text : one.client;
    if (cards.has(key)) {
      cards.get(key).querySelector(".status").before(badge(one.client));
      if (news) cards.get(key).classList.add(news);
    } else cards.set(key, make("li", `${looks} ${news}`,
      make("p", "", badge(one.client), make("b", "status", text)),
      sent && make("p", "", make("span", "verb", "sent "), sent, make("small", "", inside[0])),
      received && make("p", "", make("span", "verb", "received "), received, make("small", "", inside[1]))));
  }
  list.replaceChildren(...(cards.size ? cards.values() : [make("li", "none", "no client yet")]));
}

// The sentence, the time line, and all of it

function actionText(number) {
  const text = number ? actions()[number - 1] : "the server starts";
  const several = text.replace(/^(\d+ to \d+) (\w+?)s?\b/, "Clients $1 $2");
  return several.replace(/^(\d+) /, "Client $1 ").replace(/^[a-z]/, (letter) => letter.toUpperCase());
}

function drawSentence(step) {
  const parts = { client: () => badges(step.actors), time: () => [make("b", "", "time")] };
  const more = step.skipped === 1
    ? "Here 1 more iteration of this loop is left out; it did the same with other bytes."
    : `Here ${step.skipped} more iterations of this loop are left out; they did the same with other bytes.`;
  const thread = () => [make("b", "mark", full(step.name))];
  byId("actor").replaceChildren(...(parts[step.kind] ?? thread)());
  byId("actor").ariaHidden = String(step.kind in parts); // its sentence names the client
  say(step.skipped ? more : step.sentence ?? "");
}

function say(text) {
  const sentence = byId("sentence");
  if (sentence.textContent !== text) sentence.textContent = text;
  sentence.className = text.length > 250 ? "long" : text.length > 125 ? "longer" : "";
}

function drawLine() {
  const now = action();
  const parts = [0, ...actions().map((_, at) => at + 1)];
  byId("line").style.setProperty("--actions", parts.length);
  keyed(byId("line"), parts, createMark).forEach((part, number) => {
    const [from, to] = [first(number), last(number)];
    const share = clamped((HERE.step - from + 1) / (to - from + 1), 1);
    const [button, track] = part.children;
    part.className = number === now ? "now" : number < now ? "past" : "";
    button.textContent = number ? actions()[number - 1] : "start";
    button.setAttribute("aria-label", `action ${number} of ${actions().length}: ${actionText(number)}`);
    if (number === now) button.setAttribute("aria-current", "step");
    else button.removeAttribute("aria-current");
    if (number === now) byId("line").scrollLeft = part.offsetLeft - byId("line").clientWidth / 2;
    track.firstChild.style.width = `${100 * (HERE.view === "all" && number <= now ? 1 : share)}%`;
  });
}

function createMark(number) {
  const part = make("li", "", make("button"), make("span", "track", make("i")));
  part.firstChild.addEventListener("click", () => { stop(); toAction(number); });
  for (const kind of ["pointerdown", "pointermove"]) {
    part.lastChild.addEventListener(kind, (event) => { if (event.buttons) drag(event, number); });
  }
  return part;
}

// Along the track of an action one comes to each of its steps
function drag(event, number) {
  const { left, width } = event.currentTarget.getBoundingClientRect();
  const [from, to] = [first(number), last(number)];
  stop();
  go({ step: clamped(from + Math.floor((event.clientX - left) / width * (to - from + 1)), to) });
}

function drawHead() {
  byId("scenario").value = HERE.scenario;
  const { question, answer } = DATA.scenarios[HERE.scenario];
  byId("question").textContent = isOver() ? "" : question;
  byId("end").hidden = !isOver();
  byId("end").replaceChildren(...(isOver() ? [question, make("b", "", answer)] : []));
  for (const button of byId("models").children) {
    const on = HERE.view === "all" ? !button.dataset.model : button.dataset.model === HERE.model;
    button.setAttribute("aria-pressed", String(on));
  }
  byId("scale").replaceChildren(make("i"), ` full bar: ${bytes(scale())}, this scenario's most`);
  const all = HERE.view === "all";
  byId("where").textContent = all ? `action ${action()} of ${actions().length}` : `step ${HERE.step + 1} of ${steps().length}`;
  drawKeys();
}

function drawKeys() {
  keyed(byId("keys"), Object.keys(KEYS), createKey);
  Object.keys(KEYS).forEach((key) => drawKey(key));
  drawPlay();
}

function createKey(key) {
  const button = make("button", "", make("kbd", "", KEYS[key][0]), make("span"));
  button.addEventListener("click", () => use(key));
  return button;
}

function drawKey(key, text) {
  const [, , one, all = one] = KEYS[key];
  const button = byId("keys").children[Object.keys(KEYS).indexOf(key)];
  button.lastChild.textContent = text ?? (HERE.view === "all" ? all : one);
  button.hidden = !button.lastChild.textContent;
}

function drawPlay() {
  drawKey(" ", timer ? "stop" : "play");
  drawKey("s", `speed ${speed}×`);
  drawKey("v", voting ? "show" : "vote");
}

// The clients' next action, or the next step of a thread, is not shown yet.
function drawVote() {
  const next = HERE.view === "all" ? action() + 1 : steps()[HERE.step + 1].action;
  const asked = next === action() ? "What comes next?" : `${actionText(next)}: what does ${HERE.view === "all" ? "each server" : "the server"} do?`;
  byId("actor").replaceChildren(make("b", "", "vote"));
  byId("actor").ariaHidden = "false";
  say(asked);
}

function draw() {
  const all = HERE.view === "all";
  document.body.className = all ? "all" : code(HERE.model);
  byId("one").hidden = all;
  byId("all").hidden = !all;
  drawHead();
  drawLine();
  if (all) drawAll();
  else drawOne();
  if (voting) drawVote();
}

function drawOne() {
  const [now, before] = [stepAt(HERE.step), stepAt(HERE.step - 1)];
  drawProgram();
  drawLines(now);
  drawThreads(now);
  drawKernel(byId("kernel"), now, before, HERE.model);
  [...byId("kernel").querySelectorAll(".changed")].reverse().forEach((part) => reveal(byId("kernel"), part));
  drawClients(byId("clients"), now, HERE.model, before);
  drawSentence(now);
}

// Side by side: the state of each model after the last step of the same action

function createColumn(model) {
  const name = make("h2", "", make("b", "mark", model), ` ${DATA.programs[model].sentence}`);
  const column = make("section", `column ${code(model)}`, name, make("ul", "places"),
    make("div", "kernel"), make("ul", "clients"));
  column.setAttribute("aria-label", model);
  return column;
}

// The largest text with which nothing needs to be scrolled
function setSize() {
  const all = byId("all");
  for (let size = 28; size >= 15; size--) {
    all.style.fontSize = `${size / 20}rem`;
    if (all.scrollHeight <= all.clientHeight) return;
  }
}

function drawAll() {
  const number = action();
  keyed(byId("all"), MODELS, createColumn).forEach((column) => {
    const model = column.dataset.key;
    const now = stepAt(last(number, model), model);
    const before = stepAt(first(number, model) - 1, model);
    const [, places, kernel, clients] = column.children;
    places.replaceChildren(...[...threadsByLine(now)].map(([line, here]) => make("li", "",
      ...marksOf(here), make("code", "", `${line}  ${DATA.programs[model].lines[line - 1].replace(/ {2}#.*/, "").trim()}`))));
    drawKernel(kernel, now, before, model);
    drawClients(clients, now, model, before);
  });
  byId("actor").replaceChildren(make("b", "", actionText(number)));
  byId("actor").ariaHidden = "false";
  say(whatDiffers(number));
  setSize();
}

// A sentence on the clients whose state differs among the models: first on one that acts
function whatDiffers(number) {
  const ends = MODELS.map((model) => stepAt(last(number, model), model));
  const status = (client, step, model) => {
    const one = step.clients.find((other) => other.client === client);
    return one && statusOf(one, step, model)[0].replace(/^silent$/, "accepted");
  };
  const states = ends[0].clients.map(({ client }) => {
    const now = MODELS.map((model, at) => status(client, ends[at], model));
    const isNew = MODELS.map((model, at) => status(client, stepAt(last(number - 1, model), model), model) !== now[at]);
    if (!same(now.map(() => now[0]), now) || same(isNew.map(() => isNew[0]), isNew)) return [client, now];
    return [client, now.map((text, at) => `${isNew[at] ? "only now" : "already"} ${text}`)];
  });
  const differing = states.filter(([, texts]) => new Set(texts).size > 1);
  const named = (clients) => `client${clients.length > 1 ? "s" : ""} ${ranges(clients)}`;
  if (!differing.length) {
    const groups = [...new Set(states.map(([, texts]) => texts[0]))].map((text) =>
      [text, states.filter(([, texts]) => texts[0] === text).map(([client]) => client)]);
    const all = groups.map(([text, clients]) => `${named(clients)} ${text}`);
    return `The same with all servers: ${all.join(", ") || "no client yet"}.`;
  }
  const acting = steps().find((step) => step.action === number && step.kind === "client")?.actors ?? [];
  const [, texts] = differing.find(([client]) => acting.includes(client)) ?? differing[0];
  const clients = named(differing.filter((one) => same(one[1], texts)).map(([client]) => client));
  const parts = [...new Set(texts)].map((text) => {
    const models = MODELS.filter((_, at) => texts[at] === text);
    const threads = ends[MODELS.indexOf(models[0])].threads;
    const why = text === "in the accept queue" && models.length === 1 && threads.length === 1 && threads[0].call;
    return `${text} with ${models.join(", ").replace(/, ([^,]+)$/, " and $1")}${why ? ` (${doing(threads[0])})` : ""}`;
  });
  return `C${clients.slice(1)}: ${parts.join("; ")}.`;
}

// The controls

function ready() {
  byId("scenario").append(...SCENARIOS.map((key) => new Option(DATA.scenarios[key].title, key)));
  byId("scenario").addEventListener("change", () => { stop(); change({ scenario: byId("scenario").value }); });
  byId("models").append(...MODELS.map((model) => modelButton(model, { model, view: "one" }, model)));
  if (MODELS.length > 1) byId("models").append(modelButton("side by side", { view: "all" }));
  let down = null;
  byId("one").addEventListener("pointerdown", (event) => { down = event; });
  byId("one").addEventListener("pointerup", (event) => { if (event.pointerType === "touch") swiped(down, event); });
  byId("ask").addEventListener("click", () => byId("words").showModal());
  document.addEventListener("keydown", pressed);
  window.addEventListener("resize", draw); // the line that was seen may be elsewhere now
  window.addEventListener("hashchange", () => { stop(); read(location.hash); });
  read(location.hash);
}

function modelButton(text, to, model = "") {
  const button = make("button", model && code(model), make("span", "spot"), text);
  button.dataset.model = model;
  button.addEventListener("click", () => { stop(); change(to); });
  return button;
}

unpack(byId("data").textContent).then(ready, () => {
  byId("sentence").textContent = "This page needs a browser of 2023 or later (DecompressionStream).";
});
