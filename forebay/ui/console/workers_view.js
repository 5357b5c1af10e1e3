// @ts-check
/** The workers: how each is, and drain, undrain, restart, scale. */

import { ask, field } from "./confirm.js";
import { ago, NOTHING, seconds, withUnit } from "./format.js";
import { h, say } from "./html.js";
import { text, word } from "./i18n.js";
import { LogLevelButton } from "./log_level.js";
import { deed } from "./notes.js";
import { csvOfServer } from "./parts.js";
import { PolledView } from "./poll.js";
import { bar, deeds, pill, Table, twoLines } from "./table.js";

/** @typedef {import("./context.js").Context} Context */
/** @typedef {import("./types.js").Worker} Worker */
/** @typedef {import("./types.js").Fleet} Fleet */

const LOOK_MS = 2_000;
const MOST_WORKERS = 64;
/** @type {Record<string, string>} */
const TONES = { ready: "good", starting: "warn", waiting: "warn", draining: "warn", drained: "faint", hung: "bad", gone: "bad" };

export class WorkersView extends PolledView {
  #table;
  #scale = h("button", { type: "button", class: "button quiet", id: "scale" }, text("scale"));
  #pause = h("button", { type: "button", class: "button quiet", id: "pause" });
  #log;
  #summary = h("p", { class: "summary" });
  /** @type {Fleet} */
  #fleet = { data: [], stacks: [] };
  #paused = false;

  /** @param {Context} context */
  constructor(context) {
    super(context, LOOK_MS);
    this.#log = new LogLevelButton(context.admin);
    this.#table = this.#makeTable();
    this.#scale.addEventListener("click", () => void this.#askScale());
    this.#pause.addEventListener("click", () => void this.#togglePause());
    const csv = csvOfServer("forebay-workers", () => context.admin.csv("workers"));
    const toolbar = h("div", { class: "toolbar" }, this.#summary, h("span", { class: "spring" }), this.#log.element, this.#pause, this.#scale, csv);
    this.element = h("div", { class: "view" }, toolbar, this.poll.element, h("div", { class: "panel flush" }, this.#table.element));
  }

  onWorkers() {
    void this.poll.start();
  }

  async look() {
    const { admin } = this.context;
    const [fleet, queue] = await Promise.all([admin.get("workers"), admin.get("queue"), this.#log.look()]);
    this.#fleet = fleet;
    this.#paused = Boolean(queue.drained);
    this.#table.show(this.#fleet.data);
    const ready = this.#fleet.data.filter((one) => one.state === "ready").length;
    say(this.#summary, text("workersReady", { ready, all: this.#fleet.data.length }));
    say(this.#pause, text(this.#paused ? "queueGoOn" : "queuePause"));
    this.#pause.setAttribute("aria-pressed", String(this.#paused));
  }

  #makeTable() {
    /** @type {import("./table.js").Column<Worker>[]} */
    const columns = [
      { name: text("state"), make: pill((one) => ({ word: stateWords(one), tone: TONES[one.state] ?? "" })), raw: (one) => one.state },
      { name: text("worker"), make: twoLines((one) => one.id, (one) => [one.host, one.pid].filter(Boolean).join(" · ")) },
      { name: text("leases"), words: (one) => withUnit(one.leases, "count"), kind: "number" },
      { name: text("runningNow"), kind: "number", make: bar((one) => shareRunning(one), (one) => runningWords(one)), raw: (one) => one.running },
      { name: text("kvUse"), kind: "number", make: bar((one) => one.kv_use, (one) => withUnit(one.kv_use, "share")), raw: (one) => one.kv_use },
      { name: text("answered"), kind: "number", words: (one) => withUnit(one.answered, "count") },
      { name: text("memoryOf"), kind: "number", words: (one) => withUnit(one.memory_bytes, "bytes"), raw: (one) => one.memory_bytes },
      { name: text("model"), make: twoLines((one) => one.model ?? NOTHING, (one) => [one.version, one.quantization, one.device].filter(Boolean).join(" · ")) },
      { name: text("group"), words: (one) => word("groups", one.group), tone: (one) => (one.group === "canary" ? "warn" : "") },
      { name: text("upFor"), words: (one) => upWords(one), kind: "number", raw: (one) => one.started_at },
      { name: text("seen"), words: (one) => ago(one.seen_at), kind: "number", tone: (one) => (one.state === "gone" ? "bad" : "faint") },
      { name: text("deeds"), kind: "deeds", make: this.#deeds() },
    ];
    return new Table({ label: text("navWorkers"), columns, keyOf: (one) => one.id, empty: text("noWorkers") });
  }

  #deeds() {
    const subject = (/** @type {Worker} */ one) => one.id;
    const here = (/** @type {Worker} */ one) => one.state !== "gone";
    const away = (/** @type {Worker} */ one) => one.state === "draining" || one.state === "drained" || one.ordered === "drain";
    return deeds(/** @type {import("./table.js").RowDeed<Worker>[]} */ ([
      { name: text("drain"), subject, fits: (one) => here(one) && !away(one), act: (one, button) => void this.#order(one, "drain", button) },
      { name: text("undrain"), subject, fits: (one) => here(one) && away(one), act: (one, button) => void this.#order(one, "undrain", button) },
      { name: text("restart"), subject, fits: here, harm: true, act: (one, button) => void this.#order(one, "restart", button) },
    ]));
  }

  /**
   * @param {Worker} worker
   * @param {"drain" | "undrain" | "restart"} order
   * @param {HTMLButtonElement} button
   */
  async #order(worker, order, button) {
    const { title, detail } = ORDERS[order];
    if (title && !(await ask({ title: text(title, { id: worker.id }), detail: detail && text(detail), action: text(order), harm: order === "restart" }))) return;
    const path = `workers/${encodeURIComponent(worker.id)}/${order}`;
    await deed(button, () => this.context.admin.act("POST", path), text("ordered", { deed: text(order), id: worker.id }));
    void this.poll.start();
  }

  async #askScale() {
    const { stacks } = this.#fleet;
    const now = stacks[0]?.wanted ?? this.#fleet.data.length;
    const count = h("input", { type: "number", min: 0, max: MOST_WORKERS, step: 1, value: now, required: true, id: "scale-count" });
    const fields = [field(text("scaleCount"), count, text("scaleHint"))];
    if (!(await ask({ title: text("scaleTitle"), detail: text("scaleDetail"), action: text("scale"), fields, harm: false }))) return;
    const wanted = Number(count.value);
    if (wanted < now && !(await ask({ title: text("scaleDownTitle", { from: now, to: wanted }), detail: text("drainDetail"), action: text("scale"), harm: true }))) return;
    await deed(this.#scale, () => this.context.admin.act("POST", "workers/scale", { count: wanted }), text("scaled", { count: wanted }));
    void this.poll.start();
  }

  async #togglePause() {
    const pausing = !this.#paused;
    if (pausing && !(await ask({ title: text("queuePauseTitle"), detail: text("queuePauseDetail"), action: text("queuePause"), harm: true }))) return;
    await deed(this.#pause, () => this.context.admin.act("POST", pausing ? "queue/drain" : "queue/undrain"), text(pausing ? "queuePaused" : "queueGoesOn"));
    void this.poll.start();
  }
}

const ORDERS = /** @type {const} */ ({
  drain: { title: "drainTitle", detail: "drainDetail" },
  undrain: { title: "", detail: "" },
  restart: { title: "restartTitle", detail: "restartDetail" },
});

/** @param {Worker} worker */
function upWords({ started_at: from, seen_at: until }) {
  return from && until ? seconds(Math.max(1, Math.round(until - from))) : NOTHING;
}

/** @param {Worker} worker */
function stateWords(worker) {
  const state = word("workerStates", worker.state);
  const done = worker.ordered === "drain" && (worker.state === "draining" || worker.state === "drained");
  return worker.ordered && !done ? text("orderedState", { state, order: word("orders", worker.ordered) }) : state;
}

/** @param {Worker} worker */
function shareRunning({ running, max_running: most }) {
  return running !== null && most ? running / most : null;
}

/** @param {Worker} worker */
function runningWords({ running, max_running: most }) {
  if (running === null) return NOTHING;
  return most ? text("valueOfLimit", { value: running, limit: most }) : String(running);
}
