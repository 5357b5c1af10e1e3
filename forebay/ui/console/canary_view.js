// @ts-check
/** The canary: what share of the tasks the new version gets, how it does beside the stable one, and
 * when its share was changed, by whom or by itself. */

import { ask, field } from "./confirm.js";
import { moment, NOTHING, plain, seconds, withUnit } from "./format.js";
import { fill, h, say } from "./html.js";
import { text, word } from "./i18n.js";
import { deed } from "./notes.js";
import { csvOfTable, part } from "./parts.js";
import { PolledView } from "./poll.js";
import { pill, Table } from "./table.js";

/** @typedef {import("./context.js").Context} Context */
/** @typedef {import("./types.js").CanaryNow} CanaryNow */
/** @typedef {import("./types.js").CanaryChange} CanaryChange */
/** @typedef {import("./types.js").CanaryFigures & {name: string, workers: number}} GroupRow */

const LOOK_MS = 2_000;
const LOGGED = 100;
/** Who the log says took a share back, when nobody did. */
const ROLLBACK = "rollback";
const QUICK = [0, 0.01, 0.05, 0.25, 0.5, 1];

export class CanaryView extends PolledView {
  #groups = groupsTable();
  #log = logTable();
  #share = 0;
  /** A person has the slider in hand: what the server says waits. */
  #moved = false;
  #slider = h("input", { type: "range", id: "canary-share", min: 0, max: 100, step: 1, "aria-describedby": "canary-about" });
  #wanted = h("output", { class: "canary-wanted", for: "canary-share" });
  #apply = h("button", { type: "button", class: "button primary", id: "canary-apply" }, text("apply"));
  #about = h("p", { class: "faint", id: "canary-about" });
  #terms = h("p", { class: "faint" });
  #back = h("p", { class: "sign-in-wrong", role: "status", hidden: true }, text("canaryIsBack"));

  /** @param {Context} context */
  constructor(context) {
    super(context, LOOK_MS);
    this.#slider.addEventListener("input", () => this.#move(Number(this.#slider.value) / 100));
    this.#apply.addEventListener("click", () => void this.#set());
    const quick = QUICK.map((share) => {
      const button = h("button", { type: "button", class: "small" }, withUnit(share, "share"));
      button.addEventListener("click", () => this.#move(share));
      return button;
    });
    const desk = h("div", { class: "canary" }, field(text("canaryShare"), this.#slider), this.#wanted,
      h("div", { class: "quick", role: "group", "aria-label": text("canaryShare") }, ...quick), this.#apply, this.#back, this.#about, this.#terms);
    this.element = h(
      "div",
      { class: "view" },
      this.poll.element,
      h("div", { class: "columns uneven" }, part(text("canaryNow"), this.#groups.element, csvOfTable(this.#groups, "forebay-canary-groups")), part(text("canaryShare"), desk)),
      part(text("canaryLog"), this.#log.element, csvOfTable(this.#log, "forebay-canary")),
    );
  }

  async look() {
    const { admin } = this.context;
    const [now, log] = await Promise.all([
      /** @type {Promise<CanaryNow>} */ (admin.get("canary")),
      /** @type {Promise<{data: CanaryChange[]}>} */ (admin.get("canary/log", { limit: LOGGED })),
    ]);
    this.#tell(now);
    this.#log.show(log.data);
  }

  /** @param {CanaryNow} now */
  #tell(now) {
    this.#share = now.share;
    if (!this.#moved) this.#show(now.share);
    this.#apply.disabled = !this.#moved;
    const runs = Object.values(now.runs ?? {}).filter((one) => typeof one === "string" && one).join(" · ");
    say(this.#about, now.workers.canary ? text("canaryRuns", { runs: runs || NOTHING, taken: withUnit(now.taken, "share") }) : text("canaryNone"));
    say(this.#terms, now.rollback ? termsWords(now.terms) : text("canaryNoRollback"));
    this.#back.hidden = !now.rolled_back;
    const groups = /** @type {const} */ (["stable", "canary"]);
    this.#groups.show(groups.map((name) => ({ ...now.figures[name], name, workers: now.workers[name] })));
  }

  /** @param {number} share that a person wants */
  #move(share) {
    this.#moved = share !== this.#share;
    this.#apply.disabled = !this.#moved;
    this.#show(share);
  }

  /** @param {number} share */
  #show(share) {
    this.#slider.value = String(Math.round(share * 100));
    this.#slider.setAttribute("aria-valuetext", withUnit(share, "share"));
    fill(this.#wanted, withUnit(share, "share"));
  }

  async #set() {
    const share = Number(this.#slider.value) / 100;
    const sure = share <= this.#share || (await ask({
      title: text("canaryTitle", { share: withUnit(share, "share") }),
      detail: text("canaryDetail", { before: withUnit(this.#share, "share") }),
      action: text("apply"),
      harm: true,
    }));
    if (!sure) return;
    await deed(this.#apply, () => this.context.admin.act("PUT", "canary", { share }), text("canarySet", { share: withUnit(share, "share") }));
    this.#moved = false;
    await this.poll.start();
  }
}

function groupsTable() {
  /** @type {import("./table.js").Column<GroupRow>[]} */
  const columns = [
    { name: text("group"), make: pill((one) => ({ word: word("groups", one.name), tone: one.name === "canary" ? "warn" : "good" })), raw: (one) => one.name },
    { name: text("navWorkers"), words: (one) => plain(one.workers), kind: "number" },
    { name: text("answered"), words: (one) => withUnit(one.answered, "count"), kind: "number" },
    { name: text("failedTasks"), words: (one) => `${plain(one.failed)} · ${withUnit(one.failed_share, "share")}`, kind: "number", raw: (one) => one.failed, tone: (one) => (one.failed ? "bad" : "") },
    { name: text("emptyAnswers"), words: (one) => withUnit(one.empty, "count"), kind: "number", tone: (one) => (one.empty ? "warn" : "") },
    { name: text("lostTasks"), words: (one) => withUnit(one.lost, "count"), kind: "number", tone: (one) => (one.lost ? "bad" : "") },
    { name: text("firstToken95"), words: (one) => withUnit(one.first_token_p95_s, "seconds"), kind: "number" },
    { name: text("whole95"), words: (one) => withUnit(one.answer_p95_s, "seconds"), kind: "number" },
  ];
  return new Table({ label: text("canaryNow"), columns, keyOf: (one) => one.name, empty: "" });
}

function logTable() {
  /** @type {import("./table.js").Column<CanaryChange>[]} */
  const columns = [
    { name: text("time"), words: (one) => moment(one.at) },
    { name: text("deed"), make: pill((one) => changeOf(one)), raw: (one) => changeOf(one).word },
    { name: text("canaryFrom"), words: (one) => withUnit(one.before, "share"), kind: "number" },
    { name: text("canaryTo"), words: (one) => withUnit(one.share, "share"), kind: "number" },
    { name: text("reason"), words: (one) => word("canaryReasons", one.reason ?? ""), kind: "wide" },
    { name: text("figures"), words: (one) => figuresOf(one), kind: "wide" },
    { name: text("by"), words: (one) => (one.by === ROLLBACK ? text("itself") : one.by) },
  ];
  return new Table({ label: text("canaryLog"), columns, keyOf: (one) => one.id, empty: text("canaryNoLog") });
}

/** @param {CanaryChange} change */
function changeOf({ by, share, before }) {
  if (by === ROLLBACK) return { word: text("canaryRolledBack"), tone: "bad" };
  return share > before ? { word: text("canaryRaised"), tone: "good" } : { word: text("canaryLowered"), tone: "warn" };
}

/** @param {CanaryChange} change what it was judged by */
function figuresOf({ figures }) {
  const sides = Object.entries(figures ?? {}).filter(([name]) => name === "stable" || name === "canary");
  return sides.map(([name, side]) => {
    const { tasks, failed_share: failed, answer_p95_s: whole } = /** @type {import("./types.js").CanaryFigures} */ (side);
    const values = { group: word("groups", name), tasks: plain(tasks), failed: withUnit(failed, "share"), whole: withUnit(whole, "seconds") };
    return text("canaryFigures", values);
  }).join(text("comma"));
}

/** @param {import("./types.js").CanaryTerms} terms */
function termsWords({ window_s: window, least, failed, slower, restarts }) {
  const values = { window: seconds(window), least: plain(least), failed: withUnit(failed, "share"), slower: plain(slower, 2), restarts: plain(restarts) };
  return text("canaryTerms", values);
}
