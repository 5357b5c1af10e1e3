// @ts-check
/** The traffic light and its reasons in words; grey where nothing has been heard of late. */

import { seconds, withUnit } from "./format.js";
import { fill, h, say } from "./html.js";
import { text, word } from "./i18n.js";

/** @typedef {import("./types.js").Light} Light */
/** @typedef {import("./types.js").Reason} Reason */
/** @typedef {import("./types.js").Unit} Unit */

const WORDS = /** @type {const} */ ({ green: "lightGreen", yellow: "lightYellow", red: "lightRed" });
/** Units of what a reason counts, where its subject is no series. */
/** @type {Record<string, Unit>} */
const REASON_UNITS = { stuck: "seconds", shedding: "per_second" };

export class LightView {
  #lamp = h("span", { class: "lamp", "aria-hidden": "true" });
  #word = h("strong", { class: "light-word" });
  #reasons = h("ul", { class: "reasons" });
  /** What is read out: without figures, which change each second. */
  #spoken = h("p", { class: "unseen", role: "status" });
  element = h("section", { class: "light", "data-color": "unknown" }, this.#lamp, h("div", {}, this.#word, this.#reasons), this.#spoken);

  /**
   * @param {Light} light
   * @param {Record<string, Unit>} units of the series
   */
  show(light, units) {
    this.element.dataset.color = light.color;
    this.element.setAttribute("aria-label", text("light"));
    say(this.#word, text(WORDS[light.color]));
    const words = light.reasons.map((one) => reasonWords(one, units));
    const items = words.length ? words : [text("nothingWrong")];
    if (items.join("\n") !== this.#shown()) fill(this.#reasons, ...items.map((one) => h("li", {}, one)));
    const codes = light.reasons.map((one) => reasonWords({ ...one, value: null }, units));
    say(this.#spoken, [text(WORDS[light.color]), ...codes].join(". "));
  }

  /** Nothing was heard for so long: the last word may not be true any more. @param {number | null} forS */
  lost(forS) {
    this.element.dataset.color = "unknown";
    say(this.#word, text("lightUnknown"));
    const why = forS === null ? text("waitingForData") : text("noDataFor", { time: seconds(Math.round(forS)) });
    if (this.#shown() !== why) fill(this.#reasons, h("li", {}, why));
    say(this.#spoken, text("lightUnknown"));
  }

  #shown() {
    return [...this.#reasons.children].map((one) => one.textContent).join("\n");
  }
}

/**
 * @param {Reason} reason
 * @param {Record<string, Unit>} units
 * @returns {string}
 */
export function reasonWords({ code, subject, value, limit }, units) {
  const unit = units[subject] ?? REASON_UNITS[code] ?? "count";
  const about = code === "over" ? word("series", subject) : code.startsWith("alert_") ? word("alerts", subject) : subject;
  const words = word("reasons", code, { subject: about });
  if (value === null) return words;
  const figures = limit === null ? withUnit(value, unit) : text("valueOfLimit", { value: withUnit(value, unit), limit: withUnit(limit, unit) });
  return text("withFigures", { words, figures });
}
