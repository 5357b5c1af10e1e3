// @ts-check
/** What the charts show, in words and figures: for screen readers, and for reading exactly. */

import { isOver } from "./chart.js";
import { withUnit } from "./format.js";
import { fill, h } from "./html.js";
import { text, word } from "./i18n.js";
import { KEYS } from "./panels.js";

/** @typedef {import("./points.js").Points} Points */

/** @type {import("./i18n.js").TextKey[]} */
const HEADS = ["series", "now", "least", "mean", "most", "limit"];

export class ValueTable {
  #body = h("tbody");
  element = h(
    "details",
    { class: "value-table", id: "values" },
    h("summary", {}, text("valuesAsTable")),
    h(
      "div",
      { class: "table" },
      h(
        "table",
        { "aria-label": text("valuesAsTable") },
        h("thead", {}, h("tr", {}, ...HEADS.map((key) => h("th", { scope: "col", class: key === "series" ? "" : "number" }, text(key))))),
        this.#body,
      ),
    ),
  );

  /**
   * @param {Points} points
   * @param {Map<string, (number | null)[]>} drawn
   * @param {(key: string) => number | null} valueOf at the cursor, or now
   */
  show(points, drawn, valueOf) {
    if (!this.element.open) return;
    const rows = KEYS.filter((key) => drawn.has(key)).map((key) => {
      const unit = points.units[key] ?? "count";
      const value = valueOf(key);
      const { least, mean, most } = spreadOf(drawn.get(key) ?? []);
      const over = isOver(points, key, value);
      const cells = [value, least, mean, most, points.thresholds[key] ?? null];
      const figures = cells.map((one, at) => h("td", { class: "number", "data-tone": over && at === 0 ? "bad" : "" }, withUnit(one, unit)));
      return h("tr", { "data-key": key }, h("th", { scope: "row" }, word("series", key)), ...figures);
    });
    fill(this.#body, ...rows);
  }
}

/** @param {(number | null)[]} column */
function spreadOf(column) {
  const known = column.filter((one) => one !== null);
  if (!known.length) return { least: null, mean: null, most: null };
  let [least, most, sum] = [Infinity, -Infinity, 0];
  for (const one of known) {
    least = Math.min(least, one);
    most = Math.max(most, one);
    sum += one;
  }
  return { least, mean: sum / known.length, most };
}
