// The image with its objects, as SVG above it: what is selected, dragged, resized or drawn. Coordinates are pixels of the image.

const NS = "http://www.w3.org/2000/svg";
const MOST_TAGS = 30; // names are written beside every object up to so many, and beside the selected one
const GRIP = 9; // pixels of the screen
const LEAST = 1; // pixels of the image that a box has at least
let palette = ["#fff"];

export const paint = (colours) => { palette = colours; };
export const colour = (number) => palette[number % palette.length];

function element(name, attributes, parent) {
  const made = document.createElementNS(NS, name);
  set(made, attributes);
  parent?.append(made);
  return made;
}

function set(node, attributes) {
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
}

const area = ([x0, y0, x1, y1]) => (x1 - x0) * (y1 - y0);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const ordered = ([a, b, c, d]) => [Math.min(a, c), Math.min(b, d), Math.max(a, c), Math.max(b, d)];

export class Stage {
  // `on` has select(id or null), move(id, box) and draw(box), called when a person has done so, and seen(number), when the
  // picture of an image has come, or can't be had.
  constructor(on) {
    this.on = on;
    this.main = document.getElementById("stage");
    this.picture = document.getElementById("picture");
    [this.shapes, this.tags, this.handles] = ["shapes", "tags", "handles"].map((id) => document.getElementById(id));
    this.nodes = new Map();
    this.view = { scale: 1, x: 0, y: 0 };
    this.size = [1, 1];
    this.selected = null;
    this.fitted = true;
    this.pencil = null; // the box that is being drawn; [] before its first corner
    this.classes = new Map();
    this.measure = document.createElement("canvas").getContext("2d");
    new ResizeObserver(() => this.fitted && this.fit()).observe(this.main);
    this.listen();
  }

  // Draws a record: nodes of objects that were there before are kept, and only what differs is set.
  show(record, classes) {
    const other = record.number !== this.record?.number;
    this.record = record;
    this.classes = classes;
    if (other) {
      if (this.pencil) this.draws(false);
      this.size = record.size;
      this.picture.removeAttribute("src"); // the picture of the image before is not to be seen until this one has come
      this.picture.src = record.picture;
      this.selected = null;
      this.fit();
    }
    const kept = new Set(record.objects.map((each) => each.id));
    for (const [id, node] of this.nodes) if (other || !kept.has(id)) { this.remove(node); this.nodes.delete(id); }
    const before = this.nodes.size, objects = [...record.objects].sort((a, b) => area(b.box) - area(a.box));
    for (const each of objects) this.draw(each);
    if (this.nodes.size !== before) this.shapes.append(...objects.map((each) => this.nodes.get(each.id).group)); // small ones above
    this.tag();
    this.grips();
  }

  remove(node) { node.group.remove(); node.tag?.remove(); }

  draw(object) {
    let node = this.nodes.get(object.id);
    if (!node) {
      const group = element("g", { "data-id": object.id }, this.shapes);
      node = { group, mask: null, halo: element("rect", { class: "halo" }, group), rect: element("rect", { class: "box" }, group) };
      this.nodes.set(object.id, node);
    }
    if (node.object === object) return;
    node.object = object;
    if (object.path && !node.mask) { node.mask = element("path", { class: "mask", "fill-rule": "evenodd" }); node.group.prepend(node.mask); }
    if (!object.path && node.mask) { node.mask.remove(); node.mask = null; }
    if (node.mask && node.path !== object.path) node.mask.setAttribute("d", (node.path = object.path));
    const shade = colour(this.classes.get(object.label) ?? 0);
    node.group.setAttribute("class", `object ${object.verdict}${object.id === this.selected ? " selected" : ""}`);
    node.group.style.setProperty("--shade", shade);
    this.place(node, object.box);
  }

  place(node, [x0, y0, x1, y1]) {
    const box = { x: x0, y: y0, width: Math.max(x1 - x0, 0), height: Math.max(y1 - y0, 0) };
    set(node.rect, box);
    set(node.halo, box);
  }

  select(id) {
    for (const each of [this.selected, id]) {
      const node = this.nodes.get(each);
      node?.group.setAttribute("class", `object ${node.object.verdict}${each === id ? " selected" : ""}`);
    }
    this.selected = id;
    this.tag();
    this.grips();
  }

  chosen() { return this.nodes.get(this.selected)?.object ?? null; }

  screen(x, y) { return [this.view.x + x * this.view.scale, this.view.y + y * this.view.scale]; }

  pixel(event) {
    const frame = this.main.getBoundingClientRect();
    return [(event.clientX - frame.left - this.view.x) / this.view.scale, (event.clientY - frame.top - this.view.y) / this.view.scale];
  }

  // The names beside the boxes, in the size of the screen, each where it hides none that was written before.
  tag() {
    const all = this.nodes.size <= MOST_TAGS, taken = [];
    const order = [...this.nodes].sort(([a], [b]) => (b === this.selected) - (a === this.selected));
    for (const [id, node] of order) {
      const wanted = all || id === this.selected;
      if (!wanted) { node.tag?.remove(); node.tag = null; continue; }
      if (!node.tag) {
        node.tag = element("g", {}, this.tags);
        node.plate = element("rect", { rx: 3, height: 18 }, node.tag);
        node.text = element("text", { x: 5, y: 13 }, node.tag);
      }
      this.write(node, id === this.selected);
      this.put(node, node.object.box, taken);
    }
    const top = this.nodes.get(this.selected)?.tag;
    if (top && top !== this.tags.lastChild) this.tags.append(top);
  }

  write(node, selected) {
    const { label, probability, score, verdict } = node.object;
    const sure = probability ?? score;
    const mark = { accepted: "✓ ", rejected: "✕ ", new: "" }[verdict];
    const name = label.length > 28 ? `${label.slice(0, 26)}…` : label;
    const text = mark + name + (selected && sure !== null ? `  ${Math.round(100 * sure)} %` : "");
    if (node.written !== text) {
      node.text.textContent = node.written = text;
      this.measure.font = "600 12px system-ui, sans-serif";
      node.width = Math.ceil(this.measure.measureText(text).width) + 10;
      node.plate.setAttribute("width", node.width);
    }
    node.tag.setAttribute("class", `tag ${verdict}${selected ? " selected" : ""}`);
    node.tag.style.setProperty("--shade", colour(this.classes.get(label) ?? 0));
  }

  // Above the box, at its left or right, below it, or inside.
  put(node, box, taken = []) {
    const [[x0, y0], [x1, y1]] = [this.screen(box[0], box[1]), this.screen(box[2], box[3])];
    const { clientWidth: width, clientHeight: height } = this.main;
    const places = [[x0 - 1, y0 - 19], [x1 + 1 - node.width, y0 - 19], [x0 - 1, y1 + 2], [x1 + 1 - node.width, y1 + 2], [x0 + 2, y0 + 2]];
    const fitting = places.map(([x, y]) => [Math.round(clamp(x, 0, Math.max(width - node.width, 0))), Math.round(clamp(y, 1, height - 20))]);
    const free = ([x, y]) => y1 < 0 || taken.every(([a, b, c]) => x >= a + c || a >= x + node.width || Math.abs(y - b) >= 18);
    const [x, y] = fitting.find(free) ?? fitting[0];
    taken.push([x, y, node.width]);
    node.tag.setAttribute("transform", `translate(${x} ${y})`);
  }

  grips(box = this.chosen()?.box) {
    const corners = box && !this.pencil ? [[0, 1], [2, 1], [2, 3], [0, 3]] : [];
    while (this.handles.children.length > corners.length) this.handles.lastChild.remove();
    corners.forEach(([i, j], k) => {
      const node = this.handles.children[k] ?? element("rect", { width: GRIP, height: GRIP, rx: 2, "data-corner": `${i}${j}` }, this.handles);
      const [x, y] = this.screen(box[i], box[j]);
      set(node, { x: x - GRIP / 2, y: y - GRIP / 2 });
    });
  }

  fit() {
    const { clientWidth: width, clientHeight: height } = this.main;
    const scale = Math.min((width - 32) / this.size[1], (height - 56) / this.size[0]);
    this.look({ scale, x: (width - scale * this.size[1]) / 2, y: (height - scale * this.size[0]) / 2 });
    this.fitted = true;
  }

  zoom(factor, x = this.main.clientWidth / 2, y = this.main.clientHeight / 2) {
    const scale = clamp(this.view.scale * factor, 0.01, 64), by = scale / this.view.scale;
    this.look({ scale, x: x - (x - this.view.x) * by, y: y - (y - this.view.y) * by });
  }

  zoomTo([x0, y0, x1, y1]) {
    const { clientWidth: width, clientHeight: height } = this.main;
    const scale = clamp(0.5 * Math.min(width / (x1 - x0), height / (y1 - y0)), 0.01, 64);
    this.look({ scale, x: width / 2 - (scale * (x0 + x1)) / 2, y: height / 2 - (scale * (y0 + y1)) / 2 });
  }

  look(view) {
    this.view = view;
    this.fitted = false;
    const [height, width] = this.size;
    this.shapes.setAttribute("transform", `translate(${view.x} ${view.y}) scale(${view.scale})`);
    Object.assign(this.picture.style, { left: `${view.x}px`, top: `${view.y}px`, width: `${width * view.scale}px`, height: `${height * view.scale}px` });
    this.picture.classList.toggle("pixels", view.scale > 3);
    this.tag();
    this.grips();
  }

  // Drawing: the box follows the pointer, or stands in the middle of what is seen and follows the arrows.
  draws(on) {
    this.pencil = on ? [] : null;
    this.main.classList.toggle("drawing", on);
    this.sketch();
    this.grips();
  }

  sketchInTheMiddle() {
    const [x, y] = [(this.main.clientWidth / 2 - this.view.x) / this.view.scale, (this.main.clientHeight / 2 - this.view.y) / this.view.scale];
    const half = Math.min(...this.size) / 16;
    this.pencil = this.inside([x - half, y - half, x + half, y + half]);
    this.sketch();
  }

  sketch() {
    this.outline?.remove();
    this.outline = null;
    if (!this.pencil?.length) return;
    const [x0, y0, x1, y1] = this.pencil;
    this.outline = element("rect", { class: "sketch", x: x0, y: y0, width: x1 - x0, height: y1 - y0 }, this.shapes);
  }

  inside(box) {
    const [height, width] = this.size;
    const [x0, y0, x1, y1] = ordered(box).map((side, k) => clamp(side, 0, k % 2 ? height : width));
    return [x0, y0, x1, y1].map((side) => Math.round(side * 10) / 10);
  }

  kept(box) {
    const [height, width] = this.size;
    const dx = clamp(0, -box[0], width - box[2]), dy = clamp(0, -box[1], height - box[3]);
    return box.map((side, k) => Math.round((side + (k % 2 ? dy : dx)) * 10) / 10);
  }

  // A box moved by the arrows: seen at once, told by whoever calls when the key is let go.
  shifted(box, dx, dy) { return this.kept(box.map((side, k) => side + (k % 2 ? dy : dx))); }

  grown([x0, y0, x1, y1], dx, dy) {
    const [height, width] = this.size;
    return [x0, y0, clamp(x1 + dx, x0 + LEAST, Math.max(width, x0 + LEAST)), clamp(y1 + dy, y0 + LEAST, Math.max(height, y0 + LEAST))];
  }

  listen() {
    this.main.addEventListener("wheel", (event) => {
      event.preventDefault();
      const frame = this.main.getBoundingClientRect();
      this.zoom(Math.exp(-event.deltaY * 0.0015), event.clientX - frame.left, event.clientY - frame.top);
    }, { passive: false });
    for (const way of ["load", "error"]) {
      this.picture.addEventListener(way, () => this.on.seen(this.record.number));
    }
    this.main.addEventListener("dblclick", () => this.fit());
    this.main.addEventListener("pointerdown", (event) => this.down(event));
    this.main.addEventListener("pointermove", (event) => this.drag?.(event));
    this.main.addEventListener("pointerup", (event) => this.up(event));
    this.main.addEventListener("pointercancel", () => this.stop());
  }

  down(event) {
    if (event.button !== 0 || !this.record) return;
    this.main.focus({ preventScroll: true });
    this.main.setPointerCapture(event.pointerId);
    const [x, y] = this.pixel(event), corner = event.target.dataset?.corner;
    if (this.pencil) return this.begin(event, (now) => { const [u, v] = this.pixel(now); this.pencil = this.inside([x, y, u, v]); this.sketch(); }, () => this.drawn());
    const id = Number(event.target.closest?.("[data-id]")?.dataset.id);
    if (corner) return this.begin(event, (now) => this.stretch(corner, now), () => this.moved());
    if (!id) return this.begin(event, (now) => this.pan(event, now), (was) => !was && this.on.select(null), { ...this.view });
    if (id !== this.selected) this.on.select(id);
    const box = this.chosen().box;
    this.begin(event, (now) => { const [u, v] = this.pixel(now); this.preview(this.shifted(box, u - x, v - y)); }, (was) => was && this.moved());
  }

  begin(event, step, end, view) {
    let was = false;
    this.from = view;
    this.drag = (now) => {
      if (!was && Math.hypot(now.clientX - event.clientX, now.clientY - event.clientY) < 3) return;
      was = true;
      step(now);
    };
    this.end = () => end(was);
  }

  up() {
    const end = this.end;
    this.drag = this.end = null;
    end?.();
  }

  stop() {
    this.drag = this.end = this.dragged = null;
    this.restore();
  }

  pan(start, now) {
    this.look({ ...this.from, x: this.from.x + now.clientX - start.clientX, y: this.from.y + now.clientY - start.clientY });
  }

  stretch(corner, event) {
    const [i, j] = [...corner].map(Number), [x, y] = this.pixel(event), box = [...this.chosen().box];
    box[i] = x; box[j] = y;
    this.preview(this.inside(box));
  }

  // Shows the selected box in another place, before that is told.
  preview(box) {
    this.dragged = box;
    const node = this.nodes.get(this.selected);
    this.place(node, box);
    node.mask?.setAttribute("visibility", "hidden");
    this.grips(box);
    if (node.tag) this.put(node, box);
  }

  restore() {
    const node = this.nodes.get(this.selected);
    if (node) { this.place(node, node.object.box); node.mask?.removeAttribute("visibility"); }
    this.tag();
    this.grips();
  }

  moved() {
    const box = this.dragged, node = this.nodes.get(this.selected);
    this.dragged = null;
    node?.mask?.removeAttribute("visibility");
    if (!box || !node) return;
    if (box[2] - box[0] < LEAST || box[3] - box[1] < LEAST) return this.restore();
    this.on.move(this.selected, box);
  }

  drawn() {
    const box = this.pencil;
    if (!box?.length || box[2] - box[0] < LEAST || box[3] - box[1] < LEAST) return this.draws(true);
    this.on.draw(box); // seen as a sketch until whoever is called ends the drawing
  }
}
