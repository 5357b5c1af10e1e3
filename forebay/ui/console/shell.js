// @ts-check
/** The frame around every view: brand, traffic light, how fresh the data are, places, choices. */

import { followTheme } from "../theme.js";
import { ago, clock, seconds } from "./format.js";
import { fill, h, icon, say } from "./html.js";
import { text } from "./i18n.js";
import { languageSwitch } from "./language_switch.js";
import { LightView } from "./light.js";
import { PLACES } from "./router.js";

/** @typedef {import("./live.js").StreamState} StreamState */

const THEME_ICON = "M10 3.5 A6.5 6.5 0 1 0 10 16.5 Z M10 3.5 A6.5 6.5 0 0 1 10 16.5";
const LEAVE_ICON = "M8 4 H4 V16 H8 M9 10 H17 M14 7 L17 10 L14 13";

export class Shell {
  light = new LightView();
  #stream = h("span", { class: "stream", id: "stream" });
  #streamSpoken = h("span", { class: "unseen", role: "status" });
  #main = h("main", { id: "main" });
  #badges = new Map(PLACES.map(({ id }) => [id, h("span", { class: "badge", hidden: true })]));
  #links = new Map(PLACES.map((place) => [place.id, this.#link(place)]));

  /**
   * @param {{onLanguage: (language: "en" | "zh") => void, onLeave: () => void}} choices
   */
  constructor({ onLanguage, onLeave }) {
    const leave = h("button", { type: "button", class: "icon-button", id: "sign-out", "aria-label": text("signOut"), title: text("signOut") }, icon(LEAVE_ICON));
    leave.addEventListener("click", onLeave);
    const nav = h("nav", { class: "places", "aria-label": text("places") }, ...this.#links.values());
    this.element = h(
      "div",
      { class: "shell" },
      h("a", { class: "skip", href: "#main" }, text("skip")),
      h("header", { class: "bar" }, brand(), this.light.element, h("div", { class: "bar-end" }, this.#stream, this.#streamSpoken, themeButton(), languageSwitch(onLanguage), leave)),
      nav,
      this.#main,
    );
    this.element.querySelector(".skip")?.addEventListener("click", (event) => {
      event.preventDefault(); // the fragment names a view
      this.#focus();
    });
  }

  /**
   * @param {string} place
   * @param {HTMLElement} content
   * @param {boolean} moved the person came here by a link: the reader goes to the heading
   */
  show(place, content, moved) {
    const { title } = PLACES.find((one) => one.id === place) ?? PLACES[0];
    fill(this.#main, h("h1", { class: "view-title", tabindex: "-1" }, text(title)), content);
    this.#main.dataset.place = place;
    for (const [id, link] of this.#links) {
      if (id === place) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (moved) this.#focus();
  }

  /**
   * @param {string} place
   * @param {number} count 0 for no badge
   * @param {string} label what is counted
   */
  badge(place, count, label) {
    const shown = this.#badges.get(place);
    if (!shown) return;
    shown.hidden = count === 0;
    say(shown, String(count));
    shown.setAttribute("aria-label", label);
  }

  /**
   * @param {StreamState} state
   * @param {number | null} ageS of the newest point, null for none
   * @param {boolean} stale whether it is too old to be called live
   */
  tellStream(state, ageS, stale) {
    const shown = state === "live" && !stale ? "live" : state === "connecting" ? "connecting" : "cut";
    this.#stream.dataset.state = shown;
    this.element.dataset.stale = String(stale);
    const words = shown === "live" ? text("streamLive") : shown === "connecting" ? text("streamConnecting") : text("streamCut");
    say(this.#streamSpoken, words);
    say(this.#stream, stale && ageS !== null ? text("streamAge", { words, age: seconds(Math.round(ageS)) }) : words);
    this.#stream.title = ageS === null ? "" : `${clock(Date.now() / 1000 - ageS, true)} · ${ago(Date.now() / 1000 - ageS)}`;
    this.#stream.setAttribute("aria-hidden", "true"); // the words beside it are read out, without a counting age
  }

  #focus() {
    const heading = this.#main.querySelector("h1");
    if (heading instanceof HTMLElement) heading.focus();
  }

  /** @param {(typeof PLACES)[number]} place */
  #link({ id, title, icon: drawing }) {
    return h("a", { href: `#/${id}`, "data-place": id }, icon(drawing), h("span", {}, text(title)), this.#badges.get(id));
  }
}

function brand() {
  const mark = h("img", { src: "ui/icon.svg", alt: "", class: "mark", width: 24, height: 24 });
  return h("div", { class: "brand" }, mark, h("span", {}, "Forebay"), h("span", { class: "brand-place" }, text("console")));
}

function themeButton() {
  const button = h("button", { type: "button", class: "icon-button", id: "theme", "aria-label": text("theme"), title: text("theme") }, icon(THEME_ICON));
  followTheme(button);
  return button;
}
