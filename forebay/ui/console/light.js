// @ts-check
/** The traffic light and its reasons in words; grey where nothing has been heard of late. */

import { seconds, withUnit } from "./format.js";
import { h, say } from "./html.js";
import { text, word } from "./i18n.js";
import { KEYS, unitOf } from "./panels.js";

/** @typedef {import("./types.js").Light} Light */
/** @typedef {import("./types.js").Reason} Reason */
/** @typedef {import("./types.js").Unit} Unit */

const WORDS = /** @type {const} */ ({ green: "lightGreen", yellow: "lightYellow", red: "lightRed" });
/** Units of what a reason counts. What an alert counts is told with the alert. */
/** @type {Record<string, Unit>} */
const REASON_UNITS = { stuck: "seconds", shedding: "per_second" };
/** Reasons that stand in the bar; the others are one step away. */
const MOST_IN_BAR = 2;

export class LightView {
  #lamp = h("span", { class: "lamp", "aria-hidden": "true" });
  #word = h("strong", { class: "light-word" });
  #reasons = h("ul", { class: "reasons" });
  /** What is read out: without figures, which change each second. */
  #spoken = h("p", { class: "unseen", role: "status" });
  #more = h("button", { type: "button", class: "more-reasons", "aria-expanded": "false", hidden: true });
  element = h("section", { class: "light", "data-color": "unknown", "aria-label": text("light") },
    this.#lamp, h("div", {}, this.#word, this.#reasons, this.#more), this.#spoken);

  constructor() {
    this.#more.addEventListener("click", () => {
      this.#more.setAttribute("aria-expanded", String(this.#more.getAttribute("aria-expanded") !== "true"));
    });
  }

  /** @param {Light} light */
  show(light) {
    this.element.dataset.color = light.color;
    say(this.#word, text(WORDS[light.color]));
    const words = light.reasons.map(reasonWords);
    const all = this.#more.getAttribute("aria-expanded") === "true";
    const items = all ? words : words.slice(0, MOST_IN_BAR);
    this.#list(items.length ? items : [text("nothingWrong")]);
    this.#more.hidden = words.length <= MOST_IN_BAR;
    say(this.#more, all ? text("fewerReasons") : text("moreReasons", { count: words.length - MOST_IN_BAR }));
    const codes = light.reasons.map((one) => reasonWords({ ...one, value: null }));
    say(this.#spoken, [text(WORDS[light.color]), ...codes].join(". "));
  }

  /** Nothing was heard for so long: the last word may not be true any more. @param {number | null} forS */
  lost(forS) {
    this.element.dataset.color = "unknown";
    say(this.#word, text("lightUnknown"));
    const why = forS === null ? text("waitingForData") : text("noDataFor", { time: seconds(Math.round(forS)) });
    this.#list([why]);
    this.#more.hidden = true;
    say(this.#spoken, text("lightUnknown"));
  }

  /** @param {string[]} items written over those that are there: nothing jumps */
  #list(items) {
    while (this.#reasons.children.length > items.length) this.#reasons.lastElementChild?.remove();
    while (this.#reasons.children.length < items.length) this.#reasons.append(h("li"));
    items.forEach((one, at) => say(this.#reasons.children[at], one));
  }
}

/**
 * @param {Reason} reason
 * @returns {string}
 */
export function reasonWords({ code, subject, value, limit }) {
  const unit = code === "over" && KEYS.includes(subject) ? unitOf(subject) : REASON_UNITS[code];
  const about = code === "over" ? word("series", subject) : code.startsWith("alert_") ? word("alerts", subject) : subject;
  const words = word("reasons", code, { subject: about });
  if (value === null || !unit) return words;
  const figures = limit === null ? withUnit(value, unit) : text("valueOfLimit", { value: withUnit(value, unit), limit: withUnit(limit, unit) });
  return text("withFigures", { words, figures });
}
