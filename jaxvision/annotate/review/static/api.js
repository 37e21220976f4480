// Requests to the server, and the actions that wait to be stored: one after another, each with the version it was made of.

export class Refused extends Error {
  constructor(status, answer) {
    super(answer.error || `the server answered ${status}`);
    this.status = status;
    this.answer = answer;
  }
}

async function request(path, options) {
  const response = await fetch(path, options); // a TypeError if the server is gone
  const text = await response.text();
  let answer;
  try { answer = JSON.parse(text); } catch { answer = { error: text.trim() }; }
  if (!response.ok) throw new Refused(response.status, answer);
  return answer;
}

export const get = (path) => request(path, { cache: "no-store" });

export const post = (path, body) =>
  request(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

const RETRY = 1000; // milliseconds

// What a person did, to be stored in order. Calls `told` with "storing", "stored", "gone" or "locked" whenever that changes,
// with how many actions wait, and what the server says where it is there but can't store (5xx): those are sent again, too.
export class Outbox {
  constructor({ told, stored, conflict, refused }) {
    Object.assign(this, { told, stored, conflict, refused });
    this.waiting = [];
    this.versions = new Map(); // by number of the image
    this.ids = new Map(); // of objects drawn here: what the page called them to what the store does
    this.state = "stored";
    this.reason = "";
    this.busy = false;
    this.tab = Math.random().toString(36).slice(2); // with a count, the name of an action: sent twice, it is done once
    this.count = 0;
  }

  knows(record) { this.versions.set(record.number, record.version); }

  holds(number) { return this.waiting.some((job) => job.number === number); }

  change(number, changes, known) { this.push({ path: "/api/change", number, changes, known }); }

  step(direction) { this.push({ path: `/api/${direction}`, number: null }); }

  many(body, path = "/api/many") { this.push({ path, number: null, body }); }

  push(job) {
    job.key = `${this.tab}-${++this.count}`;
    this.waiting.push(job);
    this.tell("storing");
    this.run();
  }

  tell(state, reason = "") {
    if (state !== this.state || reason !== this.reason) this.told((this.state = state), this.waiting.length, (this.reason = reason));
  }

  body(job) {
    if (job.body) return { ...job.body, key: job.key };
    if (!job.changes) return { key: job.key };
    const changes = job.changes.map((each) => ({ ...each, object: this.ids.get(each.object) ?? each.object }));
    return { key: job.key, number: job.number, version: this.versions.get(job.number), changes };
  }

  async run() {
    if (this.busy) return;
    this.busy = true;
    while (this.waiting.length) {
      const job = this.waiting[0];
      try {
        const answer = await post(job.path, this.body(job));
        this.done(job, answer);
      } catch (error) {
        if (!(error instanceof Refused) || error.status >= 500) {
          this.tell("gone", error instanceof Refused ? error.message : "");
          await new Promise((resume) => setTimeout(resume, RETRY));
        } else if (error.status === 403) {
          this.tell("locked");
          break;
        } else this.failed(job, error);
      }
    }
    this.busy = false;
    if (!this.waiting.length) this.tell("stored");
  }

  done(job, answer) {
    this.waiting.shift();
    if (this.state === "gone") this.tell("storing");
    if (answer.record) {
      this.knows(answer.record);
      const drawn = job.changes?.find((each) => each.action === "add");
      if (drawn) this.ids.set(drawn.drawn, Math.max(...answer.record.objects.map((each) => each.id)));
    }
    this.stored(job, answer, answer.record && this.holds(answer.record.number));
  }

  // What was made of an old version is dropped with all that was done to the image after it.
  failed(job, error) {
    const dropped = this.waiting.filter((each) => each === job || (job.number !== null && each.number === job.number));
    this.waiting = this.waiting.filter((each) => !dropped.includes(each));
    if (error.answer.record) this.knows(error.answer.record);
    (error.status === 409 ? this.conflict : this.refused)(error, dropped.length, job);
  }
}
