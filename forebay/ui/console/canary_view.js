// @ts-check
/** The canary: what share of the work the new version gets, and when it was taken back by itself. */

import { ask } from "./confirm.js";
import { h } from "./html.js";
import { text } from "./i18n.js";
import { Poll } from "./poll.js";
import { Table } from "./table.js";

/** @typedef {import("./context.js").Context} Context */

export class CanaryView {
  element = h("div", { class: "view" });
  /** @param {Context} context */
  constructor(context) { void context; void ask; void text; void Poll; void Table; }
  show() {}
  hide() {}
}
