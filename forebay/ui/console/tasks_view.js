// @ts-check
/** Tasks of every tenant by state, searched, and what may be done to them. */

import { ask } from "./confirm.js";
import { moment, NOTHING, seconds, withUnit } from "./format.js";
import { fill, h, say } from "./html.js";
import { text, word } from "./i18n.js";
import { deed } from "./notes.js";
import { csvOfServer } from "./parts.js";
import { PolledView } from "./poll.js";
import { deeds, pill, Table } from "./table.js";
import { TaskPane } from "./task_pane.js";
import { canCancel, cancelTask, forgetTask, replayTask, TONES } from "./task_deeds.js";

/** @typedef {import("./context.js").Context} Context */
/** @typedef {import("./types.js").Task} Task */
/** @typedef {import("./types.js").TaskPage} TaskPage */

const LOOK_MS = 2_000;
const PAGE = 50;
const TYPING_MS = 300;
const STATES = ["", "queued", "running", "delayed", "suspect", "finished", "failed", "cancelled", "expired", "dead"];

export class TasksView extends PolledView {
  #table;
  #pane;
  #state = h("fieldset", { class: "segments wrap", id: "task-states" });
  #search = h("input", { type: "search", id: "task-search", placeholder: text("searchTask"), "aria-label": text("searchTask"), autocomplete: "off", spellcheck: "false" });
  #tenant = h("input", { type: "search", id: "task-tenant", placeholder: text("tenant"), "aria-label": text("tenant"), autocomplete: "off", spellcheck: "false" });
  #replayAll = h("button", { type: "button", class: "button quiet", id: "replay-all" }, text("replayAll"));
  #more = h("button", { type: "button", class: "button quiet", id: "more-tasks" }, text("more"));
  #partial = h("p", { class: "faint none", hidden: true }, text("tasksPartial"));
  #typing = 0;
  /** How many pages are in sight. */
  #pages = 1;

  /** @param {Context} context */
  constructor(context) {
    super(context, LOOK_MS);
    this.#pane = new TaskPane(context.admin, () => void this.poll.start());
    this.#table = this.#makeTable();
    this.#search.value = context.kept.search ?? "";
    this.#tenant.value = context.kept.tenant ?? "";
    for (const one of [this.#search, this.#tenant]) one.addEventListener("input", () => this.#typed());
    this.#replayAll.addEventListener("click", () => void this.#askReplayAll());
    this.#more.addEventListener("click", () => this.#showMore());
    this.element = h("div", { class: "view" }, this.#toolbar(), this.poll.element,
      h("div", { class: "panel flush" }, this.#table.element, h("div", { class: "panel-foot" }, this.#partial, this.#more)), this.#pane.element);
  }

  hide() {
    super.hide();
    this.#pane.close();
  }

  #toolbar() {
    const choices = STATES.map((state) => {
      const choice = h("input", { type: "radio", name: "state", value: state, checked: state === (this.context.kept.state ?? "") });
      choice.addEventListener("change", () => this.#choose(state));
      return h("label", {}, choice, h("span", {}, state ? word("taskStates", state) : text("all")));
    });
    fill(this.#state, h("legend", { class: "unseen" }, text("state")), ...choices);
    const csv = csvOfServer("forebay-tasks", () => this.context.admin.csv("tasks", { ...this.#query(), limit: 100 }));
    return h("div", { class: "toolbar" }, this.#state, h("span", { class: "spring" }), this.#search, this.#tenant, this.#replayAll, csv);
  }

  /** @param {string} state */
  #choose(state) {
    this.context.kept.state = state;
    this.#anew();
  }

  #typed() {
    clearTimeout(this.#typing);
    this.#typing = setTimeout(() => {
      this.context.kept.search = this.#search.value.trim();
      this.context.kept.tenant = this.#tenant.value.trim();
      this.#anew();
    }, TYPING_MS);
  }

  #anew() {
    this.#pages = 1;
    void this.poll.start();
  }

  #showMore() {
    this.#pages += 1;
    void this.poll.start();
  }

  #query() {
    const { state = "", search = "", tenant = "" } = this.context.kept;
    return { state, q: search, tenant };
  }

  async look() {
    const query = this.#query();
    /** @type {Task[]} */
    const found = [];
    /** @type {string | null} */
    let after = "";
    let partial = false;
    for (let page = 0; page < this.#pages && after !== null; page += 1) {
      const answer = /** @type {TaskPage} */ (await this.context.admin.get("tasks", { ...query, limit: PAGE, after }));
      found.push(...answer.data);
      after = answer.next_after;
      partial ||= answer.partial;
    }
    if (JSON.stringify(query) !== JSON.stringify(this.#query())) return; // asked for something else meanwhile
    this.#table.show(found);
    this.#more.hidden = after === null;
    this.#partial.hidden = !partial || after !== null;
    this.#replayAll.hidden = query.state !== "dead" || found.length === 0;
  }

  #makeTable() {
    /** @type {import("./table.js").Column<Task>[]} */
    const columns = [
      { name: text("state"), make: pill((one) => ({ word: word("taskStates", one.state), tone: TONES[one.state] ?? "" })), raw: (one) => one.state },
      { name: text("task"), kind: "code", make: (current) => this.#link(current), raw: (one) => one.id },
      { name: text("tenant"), words: (one) => one.tenant },
      { name: text("made"), words: (one) => moment(one.created_at), kind: "number" },
      { name: text("waited"), words: (one) => timeWords(one.seconds.waiting), kind: "number" },
      { name: text("took"), words: (one) => timeWords(tookOf(one)), kind: "number" },
      { name: text("place"), words: (one) => withUnit(one.position, "count"), kind: "number" },
      { name: text("cost"), words: (one) => withUnit(one.cost_tokens, "count"), kind: "number" },
      { name: text("deliveries"), words: (one) => String(one.deliveries), kind: "number", tone: (one) => (one.deliveries > 1 ? "warn" : "") },
      { name: text("worker"), words: (one) => one.worker ?? NOTHING, kind: "code" },
      { name: text("error"), words: (one) => one.error?.code ?? "", kind: "code", tone: () => "bad" },
      { name: text("deeds"), kind: "deeds", make: this.#deeds() },
    ];
    return new Table({ label: text("navTasks"), columns, keyOf: (one) => one.id, empty: text("noTasks") });
  }

  /** @param {() => Task} current @returns {import("./table.js").Cell<Task>} */
  #link(current) {
    const button = h("button", { type: "button", class: "link" });
    button.addEventListener("click", () => void this.#pane.open(current().id));
    return {
      node: button,
      update: (one) => {
        say(button, one.id);
        button.setAttribute("aria-label", text("openTask", { id: one.id }));
      },
    };
  }

  #deeds() {
    const subject = (/** @type {Task} */ one) => one.id;
    const again = () => this.poll.start();
    const { admin } = this.context;
    return deeds(/** @type {import("./table.js").RowDeed<Task>[]} */ ([
      { name: text("cancelTask"), subject, harm: true, fits: canCancel, act: (one, button) => void cancelTask(admin, one.id, button).then(again) },
      { name: text("replay"), subject, fits: (one) => one.state === "dead", act: (one, button) => void replayTask(admin, one.id, button).then(again) },
      { name: text("forget"), subject, harm: true, fits: (one) => one.state === "dead", act: (one, button) => void forgetTask(admin, one.id, button).then(again) },
    ]));
  }

  async #askReplayAll() {
    const tenant = this.#tenant.value.trim();
    const sure = await ask({ title: text("replayAllTitle"), detail: text(tenant ? "replayAllOfTenant" : "replayAllDetail", { tenant }), action: text("replayAll") });
    if (!sure) return;
    await deed(this.#replayAll, () => this.context.admin.act("POST", "dead-letters/retry", { tenant }), (done) => text(done.more ? "replayedMore" : "replayedAll", { count: done.retried }));
    void this.poll.start();
  }
}

/** @param {number | null | undefined} value */
function timeWords(value) {
  return value === null || value === undefined ? NOTHING : seconds(value);
}

/** @param {Task} task @returns {number | null} from taken in to its end */
function tookOf({ created_at: from, finished_at: until }) {
  return until === null ? null : Math.max(0, until - from);
}
