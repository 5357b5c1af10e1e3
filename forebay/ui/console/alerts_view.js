// @ts-check
/** Alerts: what fires, who is told, what is silent, and what was. */

import { ChannelList } from "./channels.js";
import { ago, moment, seconds, withUnit } from "./format.js";
import { h } from "./html.js";
import { currentLanguage, text, word } from "./i18n.js";
import { deed } from "./notes.js";
import { csvOfServer, csvOfTable, part } from "./parts.js";
import { PolledView } from "./poll.js";
import { silence, writeLabels } from "./silence_form.js";
import { deeds, pill, Table } from "./table.js";

/** @typedef {import("./context.js").Context} Context */
/** @typedef {import("./types.js").Alert} Alert */
/** @typedef {import("./types.js").AlertBoard} AlertBoard */
/** @typedef {import("./types.js").Silence} Silence */
/** @typedef {{at: number, rule: string, key: string, stage: string, value: number, text: string}} Change */
/** @typedef {AlertBoard["rules"][number]} Rule */

const LOOK_MS = 4_000;
const MOST_HISTORY = 200;
/** @type {Record<string, string>} */
const TONES = { critical: "bad", warning: "warn" };
/** @type {Record<string, import("./types.js").Unit>} */
const RULE_UNITS = { ratio: "share", seconds: "seconds", rate: "per_second", number: "count" };

export class AlertsView extends PolledView {
  #alerts = alertsTable((one) => void this.#silence(one));
  #silences = silencesTable((one, button) => void this.#unsilence(one, button));
  #history = historyTable();
  #rules = rulesTable();
  #channels;
  /** @type {string[]} */
  #ruleNames = [];

  /** @param {Context} context */
  constructor(context) {
    super(context, LOOK_MS);
    this.#channels = new ChannelList(context.admin);
    const quiet = h("button", { type: "button", class: "button quiet", id: "new-silence" }, text("silenceNew"));
    quiet.addEventListener("click", () => void this.#silence(null));
    const csv = csvOfServer("forebay-alerts", () => context.admin.csv("alerts/history", { limit: 1_000 }));
    this.element = h(
      "div",
      { class: "view" },
      this.poll.element,
      part(text("alertsNow"), this.#alerts.element, csvOfTable(this.#alerts, "forebay-alerts-now")),
      h("div", { class: "columns" }, part(text("silences"), this.#silences.element, csvOfTable(this.#silences, "forebay-silences"), quiet), part(text("channels"), this.#channels.element, this.#channels.all)),
      part(text("history"), this.#history.element, csv),
      h("details", { class: "panel flush fold" }, h("summary", {}, text("rules")), this.#rules.element),
    );
  }

  async look() {
    const { admin } = this.context;
    const [board, history] = await Promise.all([
      /** @type {Promise<AlertBoard>} */ (admin.get("alerts")),
      /** @type {Promise<{data: Change[]}>} */ (admin.get("alerts/history", { limit: MOST_HISTORY })),
    ]);
    this.#ruleNames = board.rules.map((one) => one.name);
    this.#alerts.show(board.data);
    this.#silences.show(board.silences);
    this.#channels.show(board.channels);
    this.#history.show(history.data);
    this.#rules.show(board.rules);
  }

  /** @param {Alert | null} alert null: nothing is filled in yet */
  async #silence(alert) {
    const about = alert ? { rule: alert.rule, labels: alert.labels } : { rule: "", labels: {} };
    if (await silence(this.context.admin, this.#ruleNames, about)) await this.poll.start();
  }

  /** @param {Silence} silence @param {HTMLButtonElement} button */
  async #unsilence({ silence_id: id }, button) {
    await deed(button, () => this.context.admin.act("DELETE", `alerts/silences/${encodeURIComponent(id)}`), text("unsilenced"));
    await this.poll.start();
  }
}

/** @param {(alert: Alert) => void} onSilence */
function alertsTable(onSilence) {
  /** @type {import("./table.js").Column<Alert>[]} */
  const columns = [
    { name: text("state"), make: pill((one) => ({ word: word("alertStates", one.state), tone: one.state === "firing" ? (TONES[one.severity ?? ""] ?? "warn") : one.state === "resolved" ? "good" : "faint" })) },
    { name: text("rule"), words: (one) => word("alerts", one.rule) },
    { name: text("whatHappens"), words: (one) => one.text[currentLanguage()] ?? one.key, kind: "wide" },
    { name: text("labels"), words: (one) => writeLabels(one.labels), kind: "code" },
    { name: text("severity"), words: (one) => (one.severity ? word("severities", one.severity) : "") },
    { name: text("since"), words: (one) => ago(one.since), kind: "number" },
    { name: text("told"), words: (one) => (one.silenced ? text("isSilenced") : Object.keys(one.told).join(", ")), tone: (one) => (one.silenced ? "warn" : "faint") },
    { name: text("deeds"), kind: "deeds", make: deeds([{ name: text("silence"), subject: (one) => one.rule, fits: (one) => !one.silenced && one.state !== "resolved", act: (one) => onSilence(one) }]) },
  ];
  return new Table({ label: text("alertsNow"), columns, keyOf: (one) => one.key, empty: text("noAlerts") });
}

/** @param {(silence: Silence, button: HTMLButtonElement) => void} onEnd */
function silencesTable(onEnd) {
  /** @type {import("./table.js").Column<Silence>[]} */
  const columns = [
    { name: text("rule"), words: (one) => (one.rule ? word("alerts", one.rule) : text("everyRule")) },
    { name: text("labels"), words: (one) => writeLabels(one.labels), kind: "code" },
    { name: text("until"), words: (one) => moment(one.until_s), kind: "number" },
    { name: text("reason"), words: (one) => one.reason, kind: "wide" },
    { name: text("by"), words: (one) => one.by },
    { name: text("deeds"), kind: "deeds", make: deeds([{ name: text("unsilence"), subject: (one) => one.rule, act: onEnd }]) },
  ];
  return new Table({ label: text("silences"), columns, keyOf: (one) => one.silence_id, empty: text("noSilences") });
}

function historyTable() {
  /** @type {import("./table.js").Column<Change>[]} */
  const columns = [
    { name: text("time"), words: (one) => moment(one.at) },
    { name: text("state"), make: pill((one) => ({ word: word("alertStates", one.stage), tone: one.stage === "firing" ? "bad" : "good" })) },
    { name: text("rule"), words: (one) => word("alerts", one.rule) },
    { name: text("whatHappened"), words: (one) => one.text, kind: "wide" },
  ];
  return new Table({ label: text("history"), columns, keyOf: (one) => `${one.at} ${one.key} ${one.stage}`, empty: text("noHistory") });
}

function rulesTable() {
  /** @type {import("./table.js").Column<Rule>[]} */
  const columns = [
    { name: text("rule"), words: (one) => word("alerts", one.name) },
    { name: text("severity"), words: (one) => word("severities", one.severity) },
    { name: text("limit"), kind: "number", words: (one) => limitWords(one) },
    { name: text("holdsFor"), kind: "number", words: (one) => (one.for_s ? seconds(one.for_s) : text("atOnce")) },
    { name: text("runbook"), kind: "code", words: (one) => `runbook.md#${one.runbook}` },
  ];
  return new Table({ label: text("rules"), columns, keyOf: (one) => one.name, empty: "" });
}

/** @param {Rule} rule */
function limitWords({ threshold, unit }) {
  if (threshold === null) return "";
  return unit === "days" ? seconds(threshold * 86_400) : withUnit(threshold, RULE_UNITS[unit] ?? "count");
}
