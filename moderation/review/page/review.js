// The reviewers' page: shows what is next, takes decisions by key, never waits for the server.
import {NO_LINK, Outbox} from "./outbox.js";
import {boxesOver, load, pictureUrl, prepare, problem} from "./pictures.js";

const body = document.body;
const stage = document.getElementById("stage");
const said = document.getElementById("said");
const dialogs = [...document.querySelectorAll("dialog")];
const AHEAD = 11; // the one in sight and ten more
const IN_SIGHT = 0.6; // of a cell
const MAX_UNDO = Number(body.dataset.history);
const LOOK_AGAIN_MS = 20000;
const RETRY_MS = 3000;
const PACE_MS = 600000;
const MIN_PACE = 5; // decisions before a pace is told
const SELF = `${body.dataset.run}:${body.dataset.reviewer}`;

const settings = {veil: "blur", cells: "16", breakMin: body.dataset.breakMin, keys: true, ...stored(localStorage, "settings", {})};
const state = {
  grid: stored(sessionStorage, "grid", false),
  trouble: "",
  resume: stored(sessionStorage, `shown:${SELF}`, null),
  aside: [], // entries of the other view, one item or the grid, which that shows again
  ahead: [], // claimed entries that come next; `alone`: decided one by one, also in the grid
  current: [], // in sight
  showsGrid: false, // in the view of the grid odd ones are shown one by one
  painted: false,
  revealed: false,
  overlay: 0,
  together: true,
  reasons: new Set(),
  comment: "",
  shownAt: 0,
  hiddenMs: 0,
  hiddenAt: 0,
  workedMs: 0,
  filling: false,
  exhausted: false,
  frame: 0,
  frames: null,
  history: stored(sessionStorage, `history:${SELF}`, []),
  entries: new Map(), // decided entries that an undo shows again
  times: [],
  progress: null,
};
const outbox = new Outbox(SELF, {onAnswer, onState: showTrouble});

function stored(storage, name, otherwise) {
  try {
    return JSON.parse(storage.getItem(name)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

function store(storage, name, value) {
  try {
    storage.setItem(name, JSON.stringify(value));
  } catch {
    // A full or forbidden storage costs the memory of a setting only.
  }
}

function newId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((n) => n.toString(16).padStart(2, "0")).join("");
}

function say(text, warn = false) {
  said.textContent = text;
  said.classList.toggle("warn", warn);
}

// What keeps decisions from being sent; "" once they are.
function showTrouble(text) {
  if (text || state.trouble) say(text, text !== "");
  state.trouble = text;
}

async function post(path, value) {
  const response = await fetch(path, {method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(value)});
  if (response.status === 403) throw new Error(NO_LINK);
  if (!response.ok) throw new Error((await response.text()).slice(0, 300));
  return response.json();
}

// ---- what comes next ------------------------------------------------------------------------------------------------

const inGrid = () => state.showsGrid;
const cells = () => Number(settings.cells);
const wanted = () => (state.grid ? 2 * cells() : AHEAD);

const heldIds = () => [...state.current, ...state.ahead, ...state.aside].flatMap((entry) => [entry, ...entry.copies]).map((entry) => entry.item_id);

async function fill() {
  if (state.filling || state.ahead.length + state.current.length >= wanted() || state.exhausted) return;
  state.filling = true;
  try {
    const filters = Object.fromEntries(new URLSearchParams(location.search));
    const n = wanted() - state.ahead.length - state.current.length;
    const answer = await post("/next", {n, grid: state.grid, filters, have: heldIds()});
    const held = new Set(heldIds());
    const fresh = answer.items.filter((entry) => !held.has(entry.item_id));
    // After a reload the item that was in sight comes first.
    fresh.sort((a, b) => (b.item_id === state.resume) - (a.item_id === state.resume));
    state.resume = null;
    state.ahead.push(...fresh);
    for (const entry of fresh) prepare(entry, state.grid && !entry.alone ? "grid" : "item");
    showProgress(answer.progress);
    if (!fresh.length) {
      state.exhausted = true;
      setTimeout(() => { state.exhausted = false; fill(); }, LOOK_AGAIN_MS);
    }
  } catch (error) {
    say(`The queue does not answer: ${error.message}`, true);
    setTimeout(() => { state.filling = false; fill(); }, RETRY_MS);
    return;
  }
  state.filling = false;
  if (!state.current.length) advance(performance.now());
  else if (!state.exhausted && state.ahead.length + state.current.length < wanted() / 2) fill();
}

// Puts the next item, or the next grid, on the stage. since: when its key was pressed.
function advance(since) {
  Object.assign(state, {painted: false, revealed: false, comment: "", together: true, frame: 0, frames: null, current: []});
  state.reasons.clear();
  if (state.exhausted && state.ahead.length < (state.grid ? cells() : 1)) {
    // Nothing else is left: what the other view holds comes here, from its end.
    state.ahead.push(...state.aside.reverse());
    state.aside = [];
  }
  const single = !state.grid || state.ahead[0]?.alone;
  state.showsGrid = !single;
  const enough = single || state.exhausted || state.ahead.length >= cells();
  state.current = single ? state.ahead.splice(0, 1) : enough ? takeGrid() : [];
  for (const entry of state.current) prepare(entry, single ? "item" : "grid");
  body.dataset.state = "waiting";
  stage.setAttribute("aria-busy", "true");
  if (!state.current.length) showEmpty();
  else if (single) showItem(state.current[0], since);
  else showGrid(since);
  showButtons();
  fill();
}

function takeGrid() {
  const end = state.ahead.findIndex((entry) => entry.alone);
  return state.ahead.splice(0, Math.min(cells(), end < 0 ? state.ahead.length : end));
}

function showEmpty() {
  const text = document.createElement("p");
  text.className = "empty";
  text.textContent = state.exhausted ? "Nothing is left in this queue. New items appear by themselves." : "Loading …";
  stage.replaceChildren(text);
  body.dataset.state = state.exhausted ? "empty" : "waiting";
}

// Calls back once what is in the document has been painted.
function afterPaint(then) {
  requestAnimationFrame(() => { const channel = new MessageChannel(); channel.port1.onmessage = then; channel.port2.postMessage(0); });
}

function settle(shown, since) {
  afterPaint(() => {
    if (state.current[0] !== shown) return;
    state.painted = true;
    state.shownAt = performance.now();
    state.hiddenMs = 0;
    performance.measure("next", {start: since, end: state.shownAt, detail: shown.item_id});
    stage.setAttribute("aria-busy", "false");
    body.dataset.state = "ready";
    body.dataset.shown = shown.item_id;
    store(sessionStorage, `shown:${SELF}`, shown.item_id);
  });
}

// ---- one item -------------------------------------------------------------------------------------------------------

async function showItem(entry, since) {
  const template = document.createElement("template");
  template.innerHTML = entry.html; // made by the server's templates, which escape
  stage.replaceChildren(template.content);
  showPicture(entry, entry.large.image);
  showCopies(entry);
  entry.unread ??= true; // until all of its pictures are there
  showStrip(entry);
  const seen = await entry.large.ready;
  if (!entry.several) await entry.strip.found;
  if (state.current[0] !== entry) return;
  entry.seen = seen;
  if (!seen) await showProblem(entry);
  settle(entry, since);
}

function showPicture(entry, image) {
  const frame = document.createElement("div");
  frame.className = "frame";
  frame.append(image);
  if (state.overlay === 1) frame.append(boxesOver(entry.boxes.filter((b) => b.frame === null || b.frame === frameIndex())));
  stage.querySelector(".picture").replaceChildren(frame);
  showVeil();
}

async function showProblem(entry) {
  const text = document.createElement("p");
  text.className = "none";
  text.textContent = await problem(entry.item_id);
  if (state.current[0] === entry) stage.querySelector(".picture")?.replaceChildren(text);
}

const frameIndex = () => state.frames?.frames[state.frame]?.frame ?? 0;

async function showStrip(entry) {
  const found = await entry.strip.found;
  await entry.strip.pictures;
  const strip = stage.querySelector(".strip");
  if (state.current[0] !== entry || !strip) return;
  if (!found?.frames.length) { entry.unread = true; return; }
  if (found.frames.length < 2 && !entry.several) { entry.unread = false; return; }
  state.frames = found;
  state.frame = found.deciding ?? 0;
  strip.hidden = false;
  strip.replaceChildren(...found.frames.map((frame, at) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.frame = at;
    button.setAttribute("aria-label", frame.clock ? `Picture at ${frame.clock}` : `Picture ${at + 1} of ${found.frames.length}`);
    button.classList.toggle("deciding", at === found.deciding);
    const clock = document.createElement("span");
    clock.textContent = frame.clock || at + 1;
    button.append(frame.small.image, clock);
    return button;
  }));
  Promise.all(found.frames.map((frame) => frame.small.ready)).then((ready) => { entry.unread = !ready.every(Boolean) || (entry.several && isPart(entry, found)); });
  markFrame();
}

// Whether there is more of an item than the strip has: what did not decode, or an album too long for it.
function isPart(entry, found) {
  return Boolean(found.error) || (entry.kind === "album" && found.total > found.frames.length);
}

function goToFrame(at) {
  const entry = state.current[0];
  if (!state.frames || !entry) return;
  state.frame = Math.max(0, Math.min(state.frames.frames.length - 1, at));
  const {image, ready} = load(pictureUrl(entry.item_id, "large", frameIndex()), "The picture to decide on");
  ready.then((shown) => { if (shown && state.current[0] === entry) showPicture(entry, image); });
  markFrame();
}

function markFrame() {
  for (const button of stage.querySelectorAll(".strip button")) {
    const here = Number(button.dataset.frame) === state.frame;
    button.setAttribute("aria-pressed", here);
    if (here) button.scrollIntoView({block: "nearest", inline: "nearest"});
  }
}

function showCopies(entry) {
  const place = stage.querySelector("[data-copies]");
  if (!place) return;
  place.replaceChildren(...entry.copies.map((copy) => {
    lookAt(copy).then((seen) => { copy.seen = seen; copy.unread = !copy.several && copy.looks > 1; });
    const cell = document.createElement("div");
    cell.className = "cell";
    copy.small.image.alt = copy.name;
    cell.append(copy.small.image);
    return cell;
  }));
}

function cycleOverlay() {
  const entry = state.current[0];
  if (!entry || inGrid()) return;
  const kinds = [0, ...(entry.boxes.length ? [1] : []), ...(entry.overlay ? [2] : [])];
  if (kinds.length === 1) return say("Nothing is marked on this item");
  state.overlay = kinds[(kinds.indexOf(state.overlay) + 1) % kinds.length];
  if (state.overlay < 2) return showPicture(entry, state.frames ? load(pictureUrl(entry.item_id, "large", frameIndex()), "The picture to decide on").image : entry.large.image);
  const {image, ready} = load(`/overlay?${new URLSearchParams({item: entry.item_id})}`, "Which parts the score rests on");
  ready.then((shown) => { if (shown && state.current[0] === entry) showPicture(entry, image); });
}

// ---- the grid -------------------------------------------------------------------------------------------------------

async function showGrid(since) {
  const [first] = state.current;
  const shown = [...state.current];
  const grid = document.createElement("div");
  grid.className = "cells";
  grid.dataset.cells = settings.cells;
  grid.append(...shown.map((entry, at) => {
    const cell = document.createElement("button");
    cell.type = "button";
    cell.className = "cell";
    cell.dataset.at = at;
    cell.setAttribute("aria-pressed", "false");
    cell.setAttribute("aria-label", `${at + 1}: ${entry.name}`);
    entry.odd = false;
    cell.append(entry.small.image);
    const badge = [entry.several ? entry.kind : "", entry.copies.length ? `+${entry.copies.length}` : ""].filter(Boolean).join(" ");
    if (badge) cell.append(Object.assign(document.createElement("span"), {className: "badge", textContent: badge}));
    lookAt(entry).then((seen) => {
      entry.seen = seen;
      if (seen) return;
      markOdd(entry, cell, true);
      cell.replaceChildren(Object.assign(document.createElement("span"), {className: "none", textContent: "No picture"}));
    });
    return cell;
  }));
  stage.replaceChildren(grid);
  watchCells(grid, shown);
  showVeil();
  await Promise.all(shown.map(lookAt));
  if (state.current[0] === first) settle(first, since);
}

// Whether the small picture of an entry can be shown, and how many it has: a file may look otherwise in another viewer.
async function lookAt(entry) {
  const [seen, found] = await Promise.all([entry.small.ready, entry.strip.found]);
  entry.looks = found?.frames.length ?? 0;
  return seen && entry.looks > 0;
}

// On a small screen a grid is scrolled: a cell counts as shown once most of it was in sight.
function watchCells(grid, shown) {
  const watcher = new IntersectionObserver((changes) => {
    for (const change of changes) if (change.intersectionRatio >= IN_SIGHT) shown[change.target.dataset.at].inSight = true;
  }, {threshold: IN_SIGHT, rootMargin: `0px 0px -${document.querySelector("footer").offsetHeight}px 0px`});
  for (const cell of grid.children) {
    shown[cell.dataset.at].inSight = false;
    watcher.observe(cell);
  }
}

function markOdd(entry, cell, odd) {
  entry.odd = odd;
  cell.setAttribute("aria-pressed", odd);
}

function moveInGrid(key) {
  const all = [...stage.querySelectorAll(".cell")];
  const columns = getComputedStyle(all[0].parentElement).gridTemplateColumns.split(" ").length;
  const step = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns}[key];
  const at = all.indexOf(document.activeElement);
  all[at < 0 ? 0 : Math.max(0, Math.min(all.length - 1, at + step))].focus();
}

// ---- deciding -------------------------------------------------------------------------------------------------------

const unveiled = () => settings.veil !== "blur" || state.revealed;

// Why what is in sight may not be passed; "" where it may.
function unseen(entries) {
  if (!unveiled()) return "It is blurred: reveal it (R) before you pass it";
  if (inGrid() && state.current.some((entry) => !entry.inSight)) return "Not all of the grid was in sight: scroll to its end first";
  if (entries.some((entry) => !entry.seen)) return "A picture could not be shown: block, skip or escalate it, or decide it alone (A)";
  if (entries.some((entry) => entry.unread)) return `Not all of its pictures were shown: block, skip or escalate it${entries.length > 1 ? ", or decide it alone (A)" : ""}`;
  return "";
}

function decide(answer, since) {
  if (!state.painted || !state.current.length) return;
  if (inGrid()) return decideGrid(answer, since);
  const [entry] = state.current;
  const decided = [entry, ...(state.together ? entry.copies : [])];
  const why = answer === "pass" ? unseen(decided) : "";
  if (why) return say(why, true);
  act(decided, [entry], answer, since);
}

function decideGrid(answer, since) {
  const odd = state.current.filter((entry) => entry.odd);
  const taken = answer === "pass" ? state.current.filter((entry) => !entry.odd) : odd;
  if (!taken.length && answer !== "pass") return say("Mark the odd ones first, with Enter or a click", true);
  const decided = taken.flatMap((entry) => [entry, ...entry.copies]);
  // Of an item of several pictures a grid shows one, and of alike items none: they are looked at one by one.
  const closer = answer === "pass" ? taken.filter((entry) => entry.several || entry.looks > 1 || entry.copies.length) : [];
  const passed = decided.filter((entry) => !closer.some((other) => other === entry || other.copies.includes(entry)));
  const why = answer === "pass" ? unseen(passed) : "";
  if (why) return say(why, true);
  const left = state.current.filter((entry) => !taken.includes(entry) || closer.includes(entry));
  for (const entry of left) entry.alone = answer === "pass";
  state.ahead.unshift(...left);
  act(answer === "pass" ? passed : decided, taken.filter((entry) => !closer.includes(entry)), answer, since);
}

// decided: entries that get a decision. entries: of these, what an undo puts back on the stage.
function act(decided, entries, answer, since) {
  const seconds = Math.max(0, performance.now() - state.shownAt - state.hiddenMs) / 1000;
  const chosen = [...state.reasons];
  const action = decided.map((entry) => {
    const own = chosen.length ? chosen : [entry.check].filter((name) => name && reasonNames.includes(name));
    const labels = answer === "block" ? own : [];
    return {
      decision_id: newId(), item_id: entry.item_id, claim: entry.claim ?? entries[0]?.claim, decision: answer, labels,
      reason: labels[0] ?? "", comment: state.comment, exposure_s: seconds, at_ms: Date.now(), shown: shownTo(entry),
    };
  });
  for (const decision of action) outbox.add(decision);
  if (action.length) remember(action, entries);
  count(action.length, seconds);
  const what = action.length === 1 ? decided[0].name : `${action.length} items`;
  const verb = {pass: "Passed", block: "Blocked", escalate: "Escalated", skip: "Skipped"}[answer];
  say(action.length ? `${verb} ${what}${action[0].reason ? `: ${action[0].labels.join(", ")}` : ""}` : "One by one");
  advance(since);
}

function shownTo(entry) {
  return {
    veil: settings.veil, revealed: String(state.revealed), seen: String(Boolean(entry.seen) && unveiled()),
    view: inGrid() ? `grid of ${state.current.length}` : "item", overlay: ["none", "boxes", "explanation"][state.overlay],
    ...(inGrid() || entry.blind ? {} : {verdict: entry.verdict ?? "", check: entry.check ?? ""}),
    together: String(entry !== state.current[0] && !inGrid()),
  };
}

function remember(action, entries) {
  for (const entry of entries) state.entries.set(entry.item_id, entry);
  state.history.push({grid: inGrid(), decisions: action.map(({decision_id, item_id, claim}) => ({decision_id, item_id, claim})), show: entries.map((e) => e.item_id)});
  for (const old of state.history.splice(0, Math.max(0, state.history.length - MAX_UNDO))) for (const id of old.show) state.entries.delete(id);
  store(sessionStorage, `history:${SELF}`, state.history);
}

async function undo(since) {
  const action = state.history.pop();
  if (!action) return say("Nothing left to undo");
  store(sessionStorage, `history:${SELF}`, state.history);
  for (const decision of action.decisions) {
    outbox.add({decision_id: newId(), item_id: decision.item_id, claim: decision.claim, decision: "skip", labels: [], reason: "undo", comment: "", exposure_s: 0, at_ms: Date.now(), shown: {}, undoes: decision.decision_id});
  }
  count(-action.decisions.length, 0);
  let entries = action.show.map((id) => state.entries.get(id));
  if (entries.includes(undefined)) {
    // After a reload: the server tells again what to show, once it knows of the undo.
    try {
      await outbox.send();
      const answer = await post("/again", {items: action.show});
      entries = answer.items;
    } catch (error) {
      return say(`Undone; it comes again in the queue (${error.message})`);
    }
  }
  const back = new Set(action.show);
  state.ahead = [...state.current, ...state.ahead].filter((entry) => !back.has(entry.item_id));
  for (const entry of entries) Object.assign(entry, {alone: !action.grid && state.grid, odd: false});
  state.ahead.unshift(...entries);
  state.current = [];
  advance(since);
  say(action.decisions.length === 1 ? `Undone: ${entries[0]?.name ?? "1 item"}` : `Undone: ${action.decisions.length} items`);
}

// The item goes behind the others that are here, undecided; also one whose picture does not come.
function later(since) {
  if (!state.current.length || inGrid()) return;
  const [entry] = state.current;
  if (!state.ahead.length) return say("There is no other item now");
  state.ahead.push(entry);
  advance(since);
  say("Later");
}

function onAnswer(answer) {
  showProgress(answer.progress);
  if (answer.refused.length) say(`${answer.refused.length} not taken: ${answer.refused[0].why}`, true);
}

// ---- around it ------------------------------------------------------------------------------------------------------

const reasonNames = [...document.querySelectorAll("[data-reason]")].map((button) => button.dataset.reason);

function toggleReason(name) {
  if (!state.reasons.delete(name)) state.reasons.add(name);
  showButtons();
}

function showButtons() {
  for (const button of document.querySelectorAll("[data-reason]")) button.setAttribute("aria-pressed", state.reasons.has(button.dataset.reason));
  document.querySelector('[data-do="reveal"]').setAttribute("aria-pressed", unveiled());
  document.querySelector('[data-do="grid"]').setAttribute("aria-pressed", state.grid);
  document.documentElement.dataset.veil = settings.veil;
}

function showVeil() {
  for (const place of stage.querySelectorAll(".frame, .strip, .cells")) place.classList.toggle("veiled", !state.revealed);
  showButtons();
}

function count(n, seconds) {
  const now = Date.now();
  for (let i = 0; i < n; i++) state.times.push(now);
  if (n < 0) state.times.splice(n);
  state.workedMs += 1000 * seconds;
  showProgress(state.progress);
  const breakMs = 60000 * Number(settings.breakMin);
  if (breakMs > 0 && state.workedMs > breakMs) {
    state.workedMs = 0;
    document.getElementById("break-text").textContent = `You have looked at pictures for ${settings.breakMin} minutes.`;
    document.getElementById("break").showModal();
  }
}

function showProgress(progress) {
  if (progress) state.progress = {...state.progress, ...progress};
  const since = Date.now() - PACE_MS;
  state.times = state.times.filter((at) => at > since);
  const spanMs = Math.max(60000, Date.now() - (state.times[0] ?? Date.now()));
  const pace = Math.round((state.times.length * 3600000) / spanMs);
  const parts = ["decided", "left"].filter((name) => state.progress?.[name] !== undefined).map((name) => `${state.progress[name].toLocaleString("en")} ${name}`);
  if (state.times.length >= MIN_PACE) parts.push(`${pace.toLocaleString("en")} an hour`);
  document.getElementById("progress").textContent = parts.join(" · ");
}

function reveal() {
  state.revealed = !state.revealed;
  showVeil();
}

// Each view keeps its own entries: those of one item are the most urgent ones, those of the grid probably fine.
function switchGrid(since) {
  state.grid = !state.grid;
  store(sessionStorage, "grid", state.grid);
  const others = state.aside;
  state.aside = [...state.current, ...state.ahead];
  Object.assign(state, {current: [], ahead: others, exhausted: false});
  advance(since);
}

// All items of this one's uploader that wait, as a grid.
function showGroup() {
  const group = state.current[0]?.group;
  if (!group || inGrid()) return say("This item names no uploader or group");
  store(sessionStorage, "grid", true);
  location.search = new URLSearchParams({attribute: group});
}

function open(id) {
  if (id === "note") document.getElementById("comment").value = state.comment;
  if (!dialogs.some((dialog) => dialog.open)) document.getElementById(id).showModal();
}

function toggleFilters() {
  const form = document.getElementById("filters");
  form.hidden = !form.hidden;
  document.querySelector('[data-do="filters"]').setAttribute("aria-expanded", String(!form.hidden));
  if (!form.hidden) form.querySelector("select, input").focus();
}

const DO = {
  pass: (at) => decide("pass", at), block: (at) => decide("block", at), escalate: (at) => decide("escalate", at), skip: (at) => decide("skip", at),
  undo, later, reveal, grid: switchGrid, help: () => open("help"), note: () => open("note"), filters: toggleFilters,
  overlay: cycleOverlay, deciding: () => goToFrame(state.frames?.deciding ?? 0), before: () => goToFrame(state.frame - 1), after: () => goToFrame(state.frame + 1),
  group: showGroup,
  together: () => { state.together = !state.together; say(state.together ? "Alike items are decided together" : "This item alone is decided"); },
  close: () => dialogs.forEach((dialog) => dialog.close()),
};
const KEYS = {p: "pass", b: "block", e: "escalate", s: "skip", u: "undo", n: "later", r: "reveal", g: "grid", "?": "help", c: "note", f: "filters",
  o: "overlay", j: "deciding", a: "together", v: "group", ArrowLeft: "before", ArrowRight: "after"};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || dialogs.some((dialog) => dialog.open)) return;
  // For some milliseconds after a dialog closed its field still has the focus.
  if (event.target.closest("input, select, textarea")?.closest("dialog:not([open])") === null || !settings.keys) return;
  if (inGrid() && event.key.startsWith("Arrow") && stage.querySelector(".cell")) {
    event.preventDefault();
    return moveInGrid(event.key);
  }
  // On a keyboard of another alphabet the place of a key counts.
  const typed = event.key.length === 1 && event.key > "~" && /^Key[A-Z]$/.test(event.code) ? event.code[3] : event.key;
  const key = typed.length === 1 ? typed.toLowerCase() : typed;
  const reason = /^[1-9]$/.test(key) ? reasonNames[Number(key) - 1] : undefined;
  if (!KEYS[key] && !reason) return;
  event.preventDefault();
  if (event.repeat) return; // a key that is held down decides once
  if (reason) toggleReason(reason);
  else DO[KEYS[key]](event.timeStamp);
});

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.do) DO[button.dataset.do](event.timeStamp);
  else if (button.dataset.reason) toggleReason(button.dataset.reason);
  else if (button.dataset.frame) goToFrame(Number(button.dataset.frame));
  else if (button.dataset.at) markOdd(state.current[button.dataset.at], button, !state.current[button.dataset.at].odd);
});

document.getElementById("comment").addEventListener("input", (event) => { state.comment = event.target.value; });

for (const field of document.querySelectorAll("[data-set]")) {
  const name = field.dataset.set;
  if (field.type === "checkbox") field.checked = settings[name];
  else field.value = settings[name];
  field.addEventListener("change", () => {
    settings[name] = field.type === "checkbox" ? field.checked : field.value;
    store(localStorage, "settings", settings);
    showVeil();
    if (name === "cells" && state.grid) { state.ahead = [...state.current, ...state.ahead]; advance(performance.now()); }
  });
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) { state.hiddenAt = performance.now(); outbox.send(true); } else state.hiddenMs += performance.now() - state.hiddenAt;
});

// The token does its work once; it has no place in the address and the history.
const address = new URL(location.href);
if (address.searchParams.has("token")) {
  address.searchParams.delete("token");
  history.replaceState(null, "", address);
}
showButtons();
// What is still to be sent goes first: the server must not hand out what is decided already.
await outbox.send();
advance(0);
