// @ts-check
/** Who did what to which, from where, and what came of it. */

import { moment } from "./format.js";
import { h } from "./html.js";
import { text, word } from "./i18n.js";
import { csvOfServer } from "./parts.js";
import { PolledView } from "./poll.js";
import { pill, Table } from "./table.js";

/** @typedef {import("./context.js").Context} Context */
/** @typedef {import("./types.js").Deed} Deed */

const LOOK_MS = 4_000;
const SHOWN = 200;
const MOST = 1_000;

export class AuditView extends PolledView {
  #table = auditTable();
  #search = h("input", { type: "search", id: "audit-search", placeholder: text("filter"), "aria-label": text("filter"), autocomplete: "off" });
  /** @type {Deed[]} */
  #found = [];

  /** @param {Context} context */
  constructor(context) {
    super(context, LOOK_MS);
    this.#search.value = context.kept.audit ?? "";
    this.#search.addEventListener("input", () => this.#show());
    const csv = csvOfServer("forebay-audit", () => context.admin.csv("audit", { limit: MOST }));
    this.element = h(
      "div",
      { class: "view" },
      h("div", { class: "toolbar" }, h("p", { class: "summary" }, text("auditNote", { count: SHOWN })), h("span", { class: "spring" }), this.#search, csv),
      this.poll.element,
      h("div", { class: "panel flush" }, this.#table.element),
    );
  }

  async look() {
    const answer = /** @type {{data: Deed[]}} */ (await this.context.admin.get("audit", { limit: SHOWN }));
    this.#found = answer.data;
    this.#show();
  }

  #show() {
    const wanted = this.#search.value.trim().toLowerCase();
    this.context.kept.audit = wanted;
    this.#table.show(this.#found.filter((one) => [word("actions", one.action), ...Object.values(one)].join(" ").toLowerCase().includes(wanted)));
  }
}

function auditTable() {
  /** @type {import("./table.js").Column<Deed>[]} */
  const columns = [
    { name: text("time"), words: (one) => moment(one.at) },
    { name: text("by"), words: (one) => one.actor },
    { name: text("deed"), words: (one) => word("actions", one.action) },
    { name: text("target"), words: (one) => one.target, kind: "code" },
    { name: text("from"), words: (one) => one.from, kind: "code" },
    { name: text("outcome"), make: pill((one) => ({ word: one.outcome === "done" ? text("done") : one.outcome, tone: one.outcome === "done" ? "good" : "bad" })), raw: (one) => one.outcome },
  ];
  return new Table({ label: text("navAudit"), columns, keyOf: (one) => `${one.at} ${one.actor} ${one.action} ${one.target}`, empty: text("noDeeds") });
}
