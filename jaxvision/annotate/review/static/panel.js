// What stands around the image: filters, classes, the objects of the image and the facts of the selected one.
// Every text goes through textContent: a name is never markup.

import { textOf, valueOf } from "./changes.js";
import { colour } from "./stage.js";

export const $ = (id) => document.getElementById(id);

export function made(name, properties = {}, ...children) {
  const node = document.createElement(name);
  Object.assign(node, properties);
  node.append(...children);
  return node;
}

export const percent = (value) => `${(100 * value).toFixed(value > 0.995 && value < 1 ? 1 : 0)} %`;
const MARKS = { accepted: "✓", rejected: "✕", new: "" };

export function amount(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

function options(select, texts, values = texts) {
  const chosen = select.value, first = select.name === "order" ? [] : [select.options[0]];
  select.replaceChildren(...first, ...texts.map((text, k) => made("option", { textContent: text, value: values[k] })));
  if ([...select.options].some((each) => each.value === chosen)) select.value = chosen;
}

export function fillFilters(session) {
  const form = document.forms[0];
  options(form.elements.order, session.orders);
  options(form.elements.label, session.classes);
  options(form.elements.source, session.sources);
  const pairs = session.attributes.flatMap(([key, values]) => values.map((value) => [key, value]));
  options(form.elements.attribute, pairs.map(([key, value]) => `${key}: ${textOf(value)}`), pairs.map((pair) => JSON.stringify(pair)));
}

export function readFilters() {
  const data = new FormData(document.forms[0]);
  return new URLSearchParams([...data].filter(([, value]) => value !== ""));
}

export function showClasses(classes, choose, current) {
  const buttons = classes.slice(0, 60).map((name, k) => {
    const swatch = made("i", { className: "swatch" });
    swatch.style.background = colour(k);
    const button = made("button", { type: "button", className: name === current ? "class current" : "class", title: name }, swatch, made("span", { textContent: name }));
    if (k < 9) button.append(made("kbd", { textContent: k + 1 }));
    button.addEventListener("click", () => choose(name));
    return button;
  });
  $("classes").replaceChildren(...buttons);
}

// The list of objects, most probably wrong first; rows are made anew only where something differs.
export class ObjectList {
  constructor(choose) {
    this.list = $("objects");
    this.rows = new Map();
    this.list.addEventListener("click", (event) => {
      const id = Number(event.target.closest("li")?.dataset.id);
      if (id) choose(id);
    });
  }

  show(record, numbers) {
    const objects = inOrder(record);
    const kept = new Set(objects.map((each) => each.id));
    const other = this.number !== record.number;
    this.number = record.number;
    for (const [id, row] of this.rows) if (other || !kept.has(id)) { row.node.remove(); this.rows.delete(id); }
    objects.forEach((each) => this.row(each, numbers));
    const nodes = objects.map((each) => this.rows.get(each.id).node);
    if (nodes.some((node, k) => this.list.children[k] !== node)) this.list.replaceChildren(...nodes);
    $("object-count").textContent = objects.length;
  }

  row(object, numbers) {
    let row = this.rows.get(object.id);
    if (row?.object === object) return;
    if (!row) {
      row = { node: made("li"), swatch: made("i", { className: "swatch" }), mark: made("b"), name: made("span"), sure: made("em") };
      row.node.dataset.id = object.id;
      row.node.append(row.swatch, row.name, row.sure, row.mark);
      this.rows.set(object.id, row);
    }
    row.object = object;
    const sure = object.probability ?? object.score;
    row.swatch.style.background = colour(numbers.get(object.label) ?? 0);
    row.name.textContent = row.name.title = object.label;
    row.sure.textContent = sure === null ? "" : percent(sure);
    row.mark.textContent = MARKS[object.verdict];
    this.style(object.id);
  }

  style(id) {
    const row = this.rows.get(id);
    if (row) row.node.className = row.object.verdict + (id === this.selected ? " selected" : "");
  }

  select(id) {
    const before = this.selected;
    this.selected = id;
    [before, id].forEach((each) => this.style(each));
    this.rows.get(id)?.node.scrollIntoView({ block: "nearest" });
  }
}

export const inOrder = (record) => [...record.objects].sort((a, b) => b.wrong - a.wrong || a.id - b.id);

function fact(name, value) {
  return [made("dt", { textContent: name }), made("dd", { textContent: value, title: value })];
}

export function showObject(object, record, session, change) {
  $("object").hidden = !object;
  if (!object) return;
  const box = object.box.map((side) => Math.round(side)), of = `${record.number}/${object.id}`;
  const facts = [fact("Class", object.label)];
  if (object.probability !== null) facts.push(fact("Probability", percent(object.probability)));
  if (object.score !== null && object.score !== object.probability) facts.push(fact("Score", percent(object.score)));
  facts.push(fact("Found by", object.sources.length ? object.sources.join(", ") : "a person"));
  facts.push(fact("Verdict", { new: "not decided", accepted: "accepted", rejected: "rejected" }[object.verdict] + (!object.human ? "" : object.verdict === "new" ? ", touched by a person" : " by a person")));
  facts.push(fact("Box", `${box[0]}, ${box[1]} · ${box[2] - box[0]} × ${box[3] - box[1]}`));
  $("facts").replaceChildren(...facts.flat());
  if ($("attributes").contains(document.activeElement) && $("attributes").dataset.of === of) return;
  $("attributes").dataset.of = of;
  $("attributes").replaceChildren(...Object.entries(object.attributes).map(([key, value]) => attribute(key, value, session, change)));
}

// An attribute that can be typed anew: an input, of a list one each value and one more. Calls `change` with the key and the new
// value, null if there is none, undefined if it can't be one.
function attribute(key, value, session, change) {
  const several = Array.isArray(value), before = several ? [...value, ""] : [textOf(value)];
  const inputs = before.map((text) => made("input", { value: text, autocomplete: "off", maxLength: 1000 }));
  if (several) inputs.forEach((input, k) => { input.ariaLabel = `${key} ${k + 1}`; input.placeholder = k === value.length ? "one more" : ""; });
  const shown = inputs.map((input) => input.value); // without line breaks, say: what was not typed stays as it is
  const typed = () => {
    if (several) return inputs.map((input, k) => (input.value === shown[k] ? before[k] : input.value.trim())).filter((each) => each !== "");
    return inputs[0].value === shown[0] ? value : valueOf(inputs[0].value, value);
  };
  let stored = JSON.stringify(value);
  const store = () => {
    const now = typed(), none = several ? !now.length : inputs[0].value.trim() === "";
    if (now === undefined && !none) inputs[0].value = shown[0]; // and below the page says why
    else if (JSON.stringify(none ? null : now) === stored) return;
    else stored = JSON.stringify(none ? null : now);
    change(key, none ? null : now);
  };
  inputs.forEach((input) => input.addEventListener("change", store));
  return made("label", { className: several ? "several" : "" }, made("span", { textContent: key, title: key }), ...inputs, ...suggestions(key, session, inputs));
}

// What other objects have there, as a list under the inputs; none if there is nothing.
function suggestions(key, session, inputs) {
  const at = session.attributes.findIndex(([name]) => name === key);
  if (at < 0 || !session.attributes[at][1].length) return [];
  const list = made("datalist", { id: `values-of-${at}` });
  list.append(...session.attributes[at][1].map((each) => made("option", { value: textOf(each) })));
  inputs.forEach((input) => input.setAttribute("list", list.id));
  return [list];
}
