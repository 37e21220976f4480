// What an action makes of a record, so that the page can draw it before the server has answered. The store has the last word.

const corrected = (object) => ({ ...object, human: true, verdict: "accepted", score: null, probability: null });

const EFFECTS = {
  accept: (object) => ({ ...object, human: true, verdict: "accepted" }),
  reject: (object) => ({ ...object, human: true, verdict: "rejected" }),
  delete: (object) => (object.sources.length ? { ...object, human: true, verdict: "rejected" } : null),
  rename: (object, label) => ({ ...corrected(object), label }),
  move: (object, box) => ({ ...corrected(object), box, path: moved(object, box) }),
  attribute: (object, [key, value]) => {
    const attributes = { ...object.attributes, [key]: value };
    if (value === null) delete attributes[key];
    return { ...object, human: true, attributes };
  },
};

// A mask of polygons follows its box; the server draws it anew. One of run lengths is left out by the store.
function moved(object, box) {
  if (!object.path || !object.follows) return null;
  const [a, b, c, d] = object.box, [x0, y0, x1, y1] = box;
  const sx = (x1 - x0) / (c - a), sy = (y1 - y0) / (d - b);
  let x = true;
  return object.path.replace(/-?[\d.]+/g, (number) => {
    const value = x ? x0 + (number - a) * sx : y0 + (number - b) * sy;
    x = !x;
    return value.toFixed(1);
  });
}

export function applied(record, { action, object: id, value, drawn }) {
  if (action === "reviewed") return { ...record, state: value === false ? "new" : "reviewed" };
  if (action === "add") {
    const object = { id: drawn, label: value.label, box: value.box, path: null, score: null, probability: null, wrong: 0,
      attributes: {}, sources: [], verdict: "accepted", human: true };
    return { ...record, objects: [...record.objects, object] };
  }
  const objects = record.objects.map((each) => (each.id === id ? EFFECTS[action](each, value) : each)).filter(Boolean);
  return { ...record, objects };
}

// The value of an attribute from its text: of the same type as the value before it, or undefined if it can't be. A list is
// JSON, any other text one value of it.
export function valueOf(text, before) {
  text = text.trim();
  if (Array.isArray(before)) return listOf(text);
  if (typeof before === "boolean") return /^(true|yes|1)$/i.test(text) ? true : /^(false|no|0)$/i.test(text) ? false : undefined;
  if (typeof before === "number") return text !== "" && Number.isFinite(Number(text)) ? Number(text) : undefined;
  return text;
}

function listOf(text) {
  let found;
  try { found = JSON.parse(text); } catch { /* one value */ }
  return Array.isArray(found) ? found.map(String) : text === "" ? [] : [text];
}

export const textOf = (value) => (Array.isArray(value) ? JSON.stringify(value) : String(value));

// What may be typed in place of a value.
export const allowed = (before) => (typeof before === "boolean" ? "true and false" : "numbers");
