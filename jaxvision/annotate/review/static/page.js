// The page: what a key or a button does, and which object comes next.

import { get, Outbox } from "./api.js";
import { allowed, applied, valueOf } from "./changes.js";
import { $, amount, fillFilters, inOrder, made, ObjectList, percent, readFilters, showClasses, showObject } from "./panel.js";
import { paint, Stage } from "./stage.js";

const KEPT = 12; // records that the page holds on to
let session, queue = { entries: [], total: 0 }, position = 0, record = null, selected = null, numbers = new Map();
let drawings = 0, lastLabel = null, lastDrawn = null, coming = 0; // how many records are waited for: what is shown is not what is meant then
let complete = 0; // images whose objects are all decided, but that nobody has marked as reviewed
let ended = false, halted = false, asked = null; // the end of the queue is told; behind the last of an image; image that Enter asked about
const records = new Map(), finished = new Set();

const outbox = new Outbox({ told: tellStored, stored: onStored, conflict: onConflict, refused: onRefused });
const stage = new Stage({ select, draw, seen: lookAtFile, move });
const list = new ObjectList(select);

// Records -------------------------------------------------------------------------------------------------------------

async function load(number) {
  if (!records.has(number)) {
    const promise = get(`/api/record/${number}`).then((found) => { outbox.knows(found); return found; });
    records.set(number, promise);
    promise.catch(() => records.delete(number));
    while (records.size > KEPT) records.delete(records.keys().next().value);
  }
  return records.get(number);
}

function adopt(found) {
  records.set(found.number, found);
  if (found.number === record?.number) show(found);
}

function show(found) {
  const other = found.number !== record?.number;
  if (other) { $("changed").hidden = true; asked = null; }
  record = found;
  learn(found.objects.map((each) => each.label));
  $("name").textContent = $("name").title = found.name;
  $("state").textContent = { new: "new", accepted: "accepted by promise", reviewed: "reviewed" }[found.state];
  $("state").className = `badge ${found.state}`;
  document.title = `${found.name} · review`;
  $("picture").alt = found.name;
  tellEmpty(found.failure ? `This image can't be read: ${found.failure}` : "");
  stage.show(found, numbers);
  if (other) pass();
  list.show(found, numbers);
  select(found.objects.some((each) => each.id === selected) ? selected : null);
}

function learn(labels) {
  const unknown = [...new Set(labels)].filter((each) => !numbers.has(each));
  if (!unknown.length) return;
  session.classes.push(...unknown.sort());
  numbers = new Map(session.classes.map((name, k) => [name, k]));
  fillFilters(session);
}

async function lookAtFile(number) {
  const found = await get(`/api/file/${number}`).catch(() => ({}));
  if (number !== record?.number) return;
  $("changed").hidden = !found.changed;
  if (found.failure) tellEmpty(`This image can't be read: ${found.failure}`);
}

function tellEmpty(text) {
  $("empty").textContent = text;
  $("empty").hidden = !text;
}

// What comes next -----------------------------------------------------------------------------------------------------

async function loadQueue(keep = false) {
  const at = queue.entries[position];
  queue = await get(`/api/queue?${readFilters()}`);
  complete = queue.complete;
  if (!keep) finished.clear();
  const again = keep && at ? queue.entries.findIndex(([number, id]) => number === at[0] && id === at[1]) : 0;
  tellCount();
  if (queue.entries.length) return go(Math.max(again, 0));
  position = 0;
  tellPlace();
  if (!record) tellEmpty("Nothing here fits these filters.");
}

function tellCount() {
  const { total, images, objects } = queue;
  $("count").textContent = total ? `${amount(objects, "object")} in ${amount(images, "image")}` : "Nothing fits these filters.";
  for (const id of ["accept-all", "reject-all", "rename-all"]) $(id).disabled = !objects;
  $("finish").hidden = !complete;
  $("finish-count").textContent = `Mark ${amount(complete, "image")} as reviewed…`;
}

async function go(to) {
  if (!queue.entries.length) return;
  halted = false;
  position = Math.min(Math.max(to, 0), queue.entries.length - 1);
  const [number, id] = queue.entries[position], at = position;
  let found;
  coming += 1;
  try { found = await load(number); } catch (error) { return tell(error.message); } finally { coming -= 1; }
  if (at !== position) return; // the person has gone on meanwhile
  if (record !== found) show(found);
  const undecided = inOrder(found).filter((each) => each.verdict === "new");
  select(id ?? (undecided[0] ?? inOrder(found)[0])?.id ?? null);
  tellPlace();
  prefetch();
}

function prefetch() {
  const ahead = [...new Set(queue.entries.slice(position + 1, position + 60).map(([number]) => number))];
  for (const number of ahead.filter((each) => each !== record?.number).slice(0, 2)) {
    load(number).then((found) => { new Image().src = found.picture; }).catch(() => {});
  }
}

function tellPlace() {
  const count = queue.entries.length, word = document.forms[0].elements.by.value === "images" ? "image" : "object";
  $("place").textContent = count ? `${word} ${(position + 1).toLocaleString("en")} of ${queue.total.toLocaleString("en")}` : "";
  $("bar").max = Math.max(queue.total, 1);
  $("bar").value = finished.size;
}

const byImages = () => document.forms[0].elements.by.value === "images";

function nextObject(step) {
  if (halted && byImages()) return nextImage(step);
  if (!byImages()) {
    if (position + step >= queue.entries.length) return end();
    return go(position + step);
  }
  const order = inOrder(record).filter((each) => each.verdict !== "rejected" || each.id === selected);
  const at = order.findIndex((each) => each.id === selected) + step;
  if (at >= order.length) return nextImage(1);
  if (at < 0) return nextImage(-1);
  select(order[at].id);
}

function nextImage(step) {
  let at = position;
  while (queue.entries[at] && queue.entries[at][0] === record?.number) at += step;
  if (at >= queue.entries.length) return end();
  return go(at);
}

function end() {
  if (queue.entries.length < queue.total) return loadQueue();
  tellEnd();
}

function tellEnd() {
  const are = complete === 1 ? "it is" : "they are";
  const rest = complete ? ` All objects of ${amount(complete, "image")} are decided, but ${are} not marked as reviewed: V marks ${complete === 1 ? "it" : "them"}.` : "";
  hint(`That was the last one of this queue.${rest}`, true);
  ended = true;
}

// Whether all objects of an image are decided, by a person, but the image is not marked as reviewed.
function isComplete({ state, objects }) {
  return state !== "reviewed" && objects.some((each) => each.human && each.verdict !== "new")
    && objects.every((each) => each.verdict === "rejected" || (each.human && each.verdict === "accepted"));
}

const COMPLETE = "All objects of this image are decided. Enter: none is missing, the image is reviewed. A or N: go on without that.";

// What a person does --------------------------------------------------------------------------------------------------

function select(id) {
  if (id !== null) halted = false;
  selected = id;
  stage.select(id);
  list.select(id);
  const object = chosen();
  showObject(object, record, session, (key, value) => setAttribute(id, key, value));
  showClasses(session.classes, (name) => rename(name), object?.label ?? lastLabel);
}

const chosen = () => record?.objects.find((each) => each.id === selected) ?? null;

// Draws what is done at once and hands it on to be stored. Nothing can be done while the server is away.
function act(changes) {
  if (coming) return;
  if (outbox.state === "gone" || outbox.state === "locked") return tell(AWAY);
  outbox.change(record.number, changes);
  const after = changes.reduce(applied, record), completes = !isComplete(record) && isComplete(after);
  records.set(after.number, after);
  for (const each of changes) finish(each);
  show(after);
  tellPlace();
  if (completes) hint(COMPLETE, true);
  return { completes };
}

function finish({ action, object }) {
  if (byImages()) return action === "reviewed" && finished.add(`${record.number}`);
  if (queue.entries.some(([number, id]) => number === record.number && id === object)) finished.add(`${record.number}/${object}`);
}

function decide(action) {
  if (coming) return;
  const object = chosen();
  if (!object && halted) return action === "accept" ? nextObject(1) : hint(COMPLETE, true);
  if (!object) return hint("No object is selected.");
  const removes = action === "reject" && !object.sources.length;
  const done = act([{ action: removes ? "delete" : action, object: object.id }]);
  if (!done) return;
  if (!removes && !done.completes) return nextObject(1);
  select(null);
  halted = done.completes;
}

function rename(label) {
  lastLabel = label;
  const object = chosen();
  if (object && object.label !== label) act([{ action: "rename", object: object.id, value: label }]);
  else if (!object) select(null);
}

function move(id, box) {
  const object = record.objects.find((each) => each.id === id), loses = object?.path && !object.follows;
  if (act([{ action: "move", object: id, value: box }]) && loses) tell("Its mask, of pixels, can't follow the box, and is removed. U brings box and mask back.");
}

function setAttribute(id, key, value) {
  const object = record.objects.find((each) => each.id === id);
  if (value === undefined) return tell(`${key} is as it was; allowed are ${allowed(object?.attributes[key])}.`);
  if (object) act([{ action: "attribute", object: id, value: [key, value] }]);
}

// What is drawn waits for its class; without one it is given up.
function draw(box) {
  silence();
  const add = (label) => {
    const drawn = -(++drawings);
    lastDrawn = label;
    stage.draws(false);
    if (act([{ action: "add", value: { label, box }, drawn }])) select(drawn);
  };
  choose(add, lastDrawn ?? lastLabel ?? session.classes[0] ?? "object", () => stage.draws(false));
}

function reviewed() {
  if (!record || coming) return;
  const open = inOrder(record).filter((each) => each.verdict === "new");
  if (record.state !== "reviewed" && open.length && asked !== record.number) return askAbout(open);
  if (record.state === "reviewed" || act([{ action: "reviewed" }])) nextImage(1);
}

// Enter once more marks the image although guesses are undecided.
function askAbout(open) {
  asked = record.number;
  select(open[0].id);
  const sure = (each) => each.probability ?? each.score, more = open.length > 3 ? ", …" : "";
  const names = open.slice(0, 3).map((each) => each.label + (sure(each) === null ? "" : ` ${percent(sure(each))}`)).join(", ") + more;
  if (open.length === 1) hint(`1 object is undecided: ${names}. Enter again lets it stand, X rejects it.`, true);
  else hint(`${amount(open.length, "object")} are undecided: ${names}. Enter again lets them stand, X rejects the selected one.`, true);
}

function acceptImage() {
  const open = record?.objects.filter((each) => each.verdict === "new") ?? [];
  if (open.length) act(open.map((each) => ({ action: "accept", object: each.id })));
}

async function many(action, value) {
  const filters = Object.fromEntries(readFilters()), what = { accept: "Accept", reject: "Reject", rename: `Rename to “${value}”` }[action];
  if (action === "reject") filters.verdict ??= "new"; // what is accepted is rejected only where the filter asks for it
  let found;
  try { found = await get(`/api/queue?${new URLSearchParams({ ...filters, by: "objects" })}`); } catch (error) { return tell(error.message); }
  const { objects: count, images } = found, kept = queue.objects - count;
  if (!count) return hint(`All of these are decided by now.${action === "reject" ? " To reject accepted ones, filter by the verdict “accepted”." : ""}`);
  const stay = kept > 0 ? ` ${amount(kept, "decided object")} ${kept === 1 ? "stays as it is" : "stay as they are"}.` : "";
  if (!await ask(`${what}: ${amount(count, "object")} in ${amount(images, "image")}?${stay} One undo takes it back.`, action === "reject")) return;
  outbox.many({ filters, action, value, count });
}

async function finishAll() {
  const count = complete, their = count === 1 ? "its" : "their";
  if (!count) return hint("There is no image whose objects are all decided, but that is not marked as reviewed.");
  const text = `Mark ${amount(count, "image")} as reviewed: all ${their} objects are decided. Objects without a guess are then held to be absent.`;
  if (await ask(`${text} One undo takes it back.`)) outbox.many({ count }, "/api/finish");
}

function ask(text, warns = false) {
  $("question").textContent = text;
  $("yes").className = warns ? "bad" : "good";
  $("ask").returnValue = "";
  $("ask").showModal();
  return new Promise((answer) => $("ask").addEventListener("close", () => answer($("ask").returnValue === "yes"), { once: true }));
}

// A class by its first letters, or by its number; `first` is the one that Enter takes. `givenUp` is called where none is chosen.
function choose(then, first = null, givenUp = null) {
  const input = $("class-input"), options = $("class-list");
  const fitting = () => {
    const text = input.value.trim().toLowerCase();
    const first = session.classes.filter((each) => each.toLowerCase().startsWith(text));
    const inside = session.classes.filter((each) => !first.includes(each) && each.toLowerCase().includes(text));
    return [...first, ...inside];
  };
  let at = 0;
  const fill = () => {
    const text = input.value.trim(), before = first !== null && !text ? [first] : [];
    const names = [...before, ...fitting().filter((each) => !before.includes(each))].slice(0, 12);
    if (text && !session.classes.includes(text)) names.push(text);
    at = Math.min(at, Math.max(names.length - 1, 0));
    options.replaceChildren(...names.map((name, k) => {
      const item = made("li", { className: k === at ? "current" : "", textContent: name });
      if (!session.classes.includes(name)) item.append(made("em", { textContent: " new class" }));
      else if (session.classes.indexOf(name) < 9) item.append(made("kbd", { textContent: session.classes.indexOf(name) + 1 }));
      item.addEventListener("click", () => take(name));
      return item;
    }));
    return names;
  };
  let taken = false;
  const take = (name) => { taken = Boolean(name); $("chooser").close(); if (name) then(name); };
  $("chooser").onclose = () => taken || givenUp?.();
  input.value = "";
  input.placeholder = first === null ? "class" : "class of the new object";
  input.oninput = () => { at = 0; fill(); };
  input.onkeydown = (event) => {
    const numbered = !input.value && /^[1-9]$/.test(event.key) && session.classes[event.key - 1];
    if (numbered && !session.classes.some((each) => each.startsWith(event.key))) { event.preventDefault(); take(numbered); }
    if (event.key === "Enter") { event.preventDefault(); take(fill()[at]); }
    if (event.key === "ArrowDown" || event.key === "ArrowUp") { event.preventDefault(); at = Math.max(at + (event.key === "ArrowDown" ? 1 : -1), 0); fill(); }
  };
  fill();
  $("chooser").showModal();
  input.focus();
}

// Arrows: the box is seen to move at once, and stored when the key is let go.
let nudged = null;

function nudge(dx, dy, grows, far) {
  const step = Math.max(1, Math.round(1 / stage.view.scale)) * (far ? 10 : 1), change = grows ? "grown" : "shifted";
  if (stage.pencil && !stage.pencil.length) return stage.sketchInTheMiddle();
  if (stage.pencil) { stage.pencil = stage[change](stage.pencil, dx * step, dy * step); return stage.sketch(); }
  const object = chosen();
  if (!object) return;
  nudged = stage[change](nudged ?? object.box, dx * step, dy * step);
  stage.preview(nudged);
}

function startDrawing() {
  if (!record) return;
  if (stage.pencil) return stage.sketchInTheMiddle();
  stage.draws(true);
  hint("Drag a box. Or press D again, move it with the arrows, with Shift resize it; Enter ends, Escape gives up.", true);
}

function pencilled() {
  if (stage.pencil.length) stage.drawn();
  else stage.sketchInTheMiddle();
}

function letGo() {
  if (!nudged) return;
  const box = nudged, object = chosen();
  nudged = stage.dragged = null;
  stage.restore();
  if (object && String(object.box) !== String(box)) move(object.id, box);
}

// Keys ----------------------------------------------------------------------------------------------------------------

const KEYS = [
  ["A", "accept, and go on", () => decide("accept"), true],
  ["X", "reject, and go on; what a person drew is removed", () => decide("reject"), true],
  ["N", "next object", () => nextObject(1), true],
  ["P", "previous object", () => nextObject(-1)],
  ["1–9", "class by its number", null, true],
  ["C", "class by its first letters", () => choose(rename), true],
  ["D", "draw an object: drag, or move with arrows and press Enter", startDrawing, true],
  ["← ↑ → ↓", "move the box; with Shift resize it, with Ctrl in large steps. A mask of polygons follows, one of pixels is removed", null, true],
  ["T", "attributes of the object", editAttributes, true],
  ["Y", "accept all of this image that are not decided", acceptImage],
  ["Enter", "image is reviewed, nothing is missing; go on to the next", () => (stage.pencil ? pencilled() : reviewed()), true],
  ["V", "images whose objects are all decided are reviewed", finishAll],
  ["PageDown", "next image", () => nextImage(1)],
  ["PageUp", "previous image", () => nextImage(-1)],
  ["U", "undo, also after a restart (Ctrl+Z)", () => step("undo"), true],
  ["R", "redo (Ctrl+Y)", () => step("redo")],
  ["L", "all of this class and this sure, at once", alike],
  ["M", "show or hide masks", () => stage.main.classList.toggle("no-masks")],
  ["H", "show or hide all objects", () => stage.main.classList.toggle("bare")],
  ["Z", "look closer at the object", () => chosen() && stage.zoomTo(chosen().box)],
  ["F", "whole image", () => stage.fit()],
  ["+", "closer", () => stage.zoom(1.25)],
  ["-", "further away", () => stage.zoom(0.8)],
  ["Escape", "stop drawing; select nothing", escape],
  ["?", "these keys", () => $("help").showModal()],
];
const RUN = new Map(KEYS.filter(([, , run]) => run).map(([key, , run]) => [key.length === 1 ? key.toLowerCase() : key, run]));
RUN.set("Delete", () => decide("reject"));
RUN.set("=", () => stage.zoom(1.25));
const REPEATED = new Set(["n", "p", "PageDown", "PageUp", "+", "=", "-", "ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"]); // when held
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function onKey(event) {
  if (document.querySelector("dialog[open]") || !session) return;
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName);
  if (typing) {
    if (event.key === "Escape" || (event.key === "Enter" && event.target.tagName === "INPUT")) { event.target.blur(); stage.main.focus(); }
    return;
  }
  const command = event.ctrlKey || event.metaKey, key = keyOf(event);
  let run;
  if (ARROWS[key]) run = () => nudge(...ARROWS[key], event.shiftKey, command);
  else if (command) run = { z: () => step(event.shiftKey ? "redo" : "undo"), y: () => step("redo") }[key];
  else if (event.altKey) return;
  else if (/^[1-9]$/.test(key)) run = () => session.classes[key - 1] !== undefined && rename(session.classes[key - 1]);
  else if (key === "Enter" && event.target.tagName === "BUTTON") return;
  else run = RUN.get(key);
  if (!run) return;
  event.preventDefault();
  if (event.repeat && !REPEATED.has(key)) return;
  if (!ARROWS[key]) letGo();
  if (key !== "Enter") asked = null;
  pass();
  run();
}

// The key in lower case; where another alphabet is written, what stands in its place on a Latin keyboard.
function keyOf(event) {
  if (event.key.length > 1) return event.key;
  return (/[^ -~]/.test(event.key) ? event.code.replace(/^(Key|Digit)/, "") : event.key).toLowerCase();
}

function step(direction) {
  if (outbox.state === "gone" || outbox.state === "locked") return tell(AWAY);
  outbox.step(direction);
}

function escape() {
  if (stage.pencil) { stage.draws(false); return pass(); }
  stage.stop();
  select(null);
}

function editAttributes() {
  if (!chosen()) return hint("No object is selected.");
  ($("attributes").querySelector("input") ?? $("new-attribute")).focus();
}

function alike() {
  const object = chosen(), form = document.forms[0].elements;
  if (!object) return hint("No object is selected.");
  const decided = object.human && object.verdict !== "new";
  form.label.value = object.label;
  form.low.value = decided ? 1 : object.probability ?? object.score ?? 0.5; // as the filter takes it, exactly: less sure ones are not meant
  form.high.value = 1;
  loadQueue().then(() => $("accept-all").focus());
}

// What the server says ------------------------------------------------------------------------------------------------

function onStored(job, answer, more) {
  if (answer.complete !== undefined) { complete = answer.complete; tellCount(); }
  if (ended) tellEnd(); // with what is stored by now
  if (answer.nothing) return tell(job.path.endsWith("undo") ? "Nothing is left to undo." : "Nothing is left to redo.");
  if (job.body) {
    records.clear();
    const left = answer.left ? ` ${amount(answer.left, "image")} changed meanwhile, and left as before.` : "";
    tell(job.path === "/api/finish" ? `Reviewed: ${amount(answer.count, "image")}.${left}` : `Stored: ${amount(answer.count, "object")}.${left}`);
    return reload();
  }
  if (more || !answer.record) return;
  const real = outbox.ids.get(selected);
  if (real && answer.record.number === record?.number) selected = real;
  if (job.changes) return adopt(answer.record);
  if (answer.several) { records.clear(); loadQueue(true); }
  records.set(answer.record.number, answer.record);
  if (answer.record.state !== "reviewed") finished.delete(`${answer.record.number}`);
  for (const each of answer.record.objects) if (each.verdict === "new") finished.delete(`${answer.record.number}/${each.id}`);
  show(answer.record);
  if (answer.object && answer.record.objects.some((each) => each.id === answer.object)) select(answer.object);
  const at = queue.entries.findIndex(([number, id]) => number === answer.record.number && (id === null || id === answer.object));
  if (at >= 0) position = at;
  tellPlace();
}

async function reload() {
  if (record) adopt(await load(record.number));
  return loadQueue();
}

function onConflict(error, dropped, job) {
  if (error.answer.record) adopt(error.answer.record);
  else if (job.body) reload();
  tell(error.answer.record ? `Changed elsewhere meanwhile: ${amount(dropped, "action")} not stored. This is how it is now.` : error.message);
}

function onRefused(error, dropped) {
  tell(`${error.message} (${amount(dropped, "action")} not stored)`);
  records.clear();
  if (record) load(record.number).then(adopt).catch(() => {});
}

const AWAY = "The server is away, or can't store: nothing can be done until what waits is stored.";

function tellStored(state, count, reason = "") {
  const gone = reason ? "can't store now" : "server is away", wait = `${amount(count, "action")} not stored yet`;
  $("stored").className = state;
  $("stored").textContent = { storing: "storing…", stored: "all stored", gone, locked: "server is another" }[state];
  if (state === "gone") tell(`${reason || "The server does not answer"}: ${wait}. The page goes on trying; nothing more can be done until then.`, true);
  else if (state === "locked") tell(`The server was started anew: open the address that it prints. ${amount(count, "action")} of this page not stored.`, true);
  else if (state === "storing" && standing) tell(`The server is back: ${wait}.`, true);
  else if (standing) unsay();
}

let fading, standing = "", passing = false;

// Says something for some seconds, or until `unsay`.
function tell(text, stays = false) {
  if (stays) standing = text;
  passing = ended = false;
  $("notice").textContent = text;
  $("notice").hidden = false;
  clearTimeout(fading);
  if (!stays) fading = setTimeout(silence, 6000);
}

// Says something until the next key or click, or another image; if it does not last, for some seconds at most.
function hint(text, lasts = false) {
  tell(text);
  if (lasts) clearTimeout(fading);
  passing = true;
}

function pass() {
  if (passing && !stage.pencil) silence();
}

function silence() {
  passing = ended = false;
  clearTimeout(fading);
  $("notice").textContent = standing;
  $("notice").hidden = !standing;
}

function unsay() {
  if ($("notice").textContent === standing) $("notice").hidden = true;
  standing = "";
}

// Beginning -----------------------------------------------------------------------------------------------------------

function listKeys() {
  const name = (key) => made("kbd", { textContent: key });
  $("keys").replaceChildren(...KEYS.map(([key, text]) => made("p", {}, name(key), made("span", { textContent: text }))));
  const short = { "1–9": "class", C: "class by letters", A: "accept", X: "reject", N: "next", D: "draw", "← ↑ → ↓": "move", T: "attributes", Enter: "image done", U: "undo" };
  $("hints").replaceChildren(...Object.entries(short).map(([key, text]) => made("span", {}, name(key), text)));
}

function listen() {
  addEventListener("keydown", onKey);
  addEventListener("keyup", (event) => ARROWS[event.key] && letGo());
  addEventListener("blur", letGo);
  addEventListener("pointerdown", () => { asked = null; pass(); }, true);
  addEventListener("beforeunload", (event) => outbox.waiting.length && event.preventDefault());
  const press = { undo: () => step("undo"), redo: () => step("redo"), accept: () => decide("accept"), reject: () => decide("reject"),
    "open-help": () => $("help").showModal(), "accept-all": () => many("accept"), "reject-all": () => many("reject"), finish: finishAll,
    "rename-all": () => choose((name) => many("rename", name)), yes: () => $("ask").close("yes"), no: () => $("ask").close("no") };
  for (const [id, run] of Object.entries(press)) $(id).addEventListener("click", () => { run(); if (!document.querySelector("dialog[open]")) stage.main.focus(); });
  document.forms[0].addEventListener("change", (event) => {
    if (event.target.type !== "number") stage.main.focus(); // keys are commands again
    loadQueue();
  });
  document.forms[0].addEventListener("submit", (event) => event.preventDefault());
  $("new-attribute").addEventListener("change", (event) => {
    const [key, ...rest] = event.target.value.split("="), object = chosen();
    event.target.value = "";
    if (!object || !key.trim()) return;
    const value = rest.length ? valueOf(rest.join("="), object.attributes[key.trim()]) : true;
    setAttribute(object.id, key.trim(), value);
  });
}

async function begin() {
  if (location.search) history.replaceState(null, "", "/"); // the token is in the cookie now
  listKeys();
  listen();
  session = await get("/api/session");
  paint(session.colours);
  numbers = new Map(session.classes.map((name, k) => [name, k]));
  fillFilters(session);
  tellStored("stored", 0);
  await loadQueue();
  if (!record) select(null);
  stage.main.focus();
  document.body.dataset.ready = "yes";
}

begin().catch((error) => tell(error.message, true));
