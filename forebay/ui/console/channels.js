// @ts-check
/** The channels by which people are told, each with a test message and what became of it. */

import { clock } from "./format.js";
import { fill, h } from "./html.js";
import { text, word } from "./i18n.js";
import { deed } from "./notes.js";

/** @typedef {import("./admin.js").Admin} Admin */
/** @typedef {{channel: string, sent: boolean, reason: string | null}} Push */

export class ChannelList {
  #admin;
  /** @type {string[]} */
  #names = [];
  /** @type {Map<string, HTMLElement>} what became of the last test */
  #results = new Map();
  element = h("div", { class: "channels" });
  all = h("button", { type: "button", class: "button quiet", id: "test-all" }, text("testAll"));

  /** @param {Admin} admin */
  constructor(admin) {
    this.#admin = admin;
    this.all.addEventListener("click", () => void this.#test("", this.all));
  }

  /** @param {string[]} names */
  show(names) {
    this.all.hidden = names.length < 2;
    if (this.element.firstChild && names.join() === this.#names.join()) return;
    this.#names = names;
    this.#results = new Map(names.map((name) => [name, h("span", { class: "channel-result" })]));
    fill(this.element, names.length === 0 && h("p", { class: "none" }, text("noChannels")), ...names.map((name) => this.#row(name)));
  }

  /** @param {string} name */
  #row(name) {
    const button = h("button", { type: "button", class: "small", "aria-label": text("deedOn", { deed: text("test"), subject: word("channels", name) }) }, text("test"));
    button.addEventListener("click", () => void this.#test(name, button));
    return h("div", { class: "channel", "data-channel": name }, h("strong", {}, word("channels", name)), this.#results.get(name), button);
  }

  /**
   * @param {string} channel "" for every one
   * @param {HTMLButtonElement} button
   */
  async #test(channel, button) {
    const answer = await deed(button, () => /** @type {Promise<{data: Push[]}>} */ (this.#admin.act("POST", "alerts/test", { channel })), "");
    for (const one of answer?.data ?? []) this.#tell(one);
  }

  /** @param {Push} push */
  #tell({ channel, sent, reason }) {
    const place = this.#results.get(channel);
    if (!place) return;
    place.dataset.tone = sent ? "good" : "bad";
    place.setAttribute("role", "status");
    place.textContent = sent ? text("sentAt", { time: clock(Date.now() / 1000) }) : text("notSent", { reason: reason ?? "" });
  }
}
