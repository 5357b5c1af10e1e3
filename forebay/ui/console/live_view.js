// @ts-check
/** The live charts: one range, one cursor, and a stop of the clock for all of them. */

import { recall, remember } from "../memory.js";
import { Chart } from "./chart.js";
import { chartColours } from "./colours.js";
import { clock, seconds } from "./format.js";
import { fill, h, say } from "./html.js";
import { text, word } from "./i18n.js";
import { noteError } from "./notes.js";
import { GROUPS } from "./panels.js";
import { csvOfServer } from "./parts.js";
import { ValueTable } from "./value_table.js";

/** @typedef {import("./context.js").Context} Context */
/** @typedef {import("./panels.js").PanelPlan} PanelPlan */
/** @typedef {import("./points.js").Points} Points */

export const RANGES_S = [60, 300, 900, 3_600, 21_600, 86_400];
const FIRST_RANGE_S = 900;
/** A redraw that would move the lines by less than this part of the width is left out. */
const LEAST_MOVE = 1 / 2_000;

export class LiveView {
  #context;
  #points;
  /** @type {Chart[]} */
  #charts = [];
  #rangeS = rememberedRange();
  /** @type {[number, number] | null} the range in sight while frozen */
  #frozen = null;
  /** @type {number | null} */
  #cursor = null;
  /** @type {Map<string, (number | null)[]>} what is drawn: it stands still while frozen */
  #drawn = new Map();
  /** @type {number[]} */
  #drawnAt = [];
  #drawnUntil = 0;
  #telling = 0;
  #asked = 0;
  #moment = h("output", { class: "moment" });
  #freeze = h("button", { type: "button", class: "button quiet", id: "freeze", "aria-pressed": "false" });
  #grid = h("div", { class: "charts", id: "charts", tabindex: "0", role: "group" });
  /** @type {PanelPlan[]} */
  #absent = [];
  #missing = h("p", { class: "faint missing" });
  #table = new ValueTable();
  #recolour = new MutationObserver(() => this.#build());

  /** @param {Context} context */
  constructor(context) {
    this.#context = context;
    this.#points = context.points;
    this.#freeze.addEventListener("click", () => this.#toggleFreeze());
    this.#grid.addEventListener("keydown", (event) => this.#onKey(event));
    this.#grid.setAttribute("aria-label", text("chartsLabel"));
    this.element = h("div", { class: "view" }, this.#toolbar(), this.#grid, this.#missing, this.#table.element);
    this.#table.element.addEventListener("toggle", () => this.#tell());
  }

  async show() {
    this.#build();
    this.#recolour.observe(document.documentElement, { attributeFilter: ["data-theme"] });
    await this.load();
  }

  hide() {
    this.#recolour.disconnect();
    this.#dispose();
  }

  /** Asks for what the server has kept: at the start, for another range, and after a cut. */
  async load() {
    const asked = (this.#asked += 1);
    try {
      const series = await this.#context.admin.get("series", { seconds: this.#rangeS });
      if (asked !== this.#asked) return; // another range was chosen meanwhile
      this.#points.load(series, this.#rangeS);
      this.#build();
    } catch (error) {
      noteError(error);
    }
  }

  /** @param {number} nowS the server's time: once a second, whether a point came or not */
  tick(nowS) {
    if (document.hidden) return;
    if (this.#absent.some((one) => this.#measured(one))) this.#build(); // a device has come
    if (!this.#frozen && Math.abs(nowS - this.#drawnUntil) >= this.#rangeS * LEAST_MOVE) this.#draw(nowS);
    this.#tell();
  }

  #toolbar() {
    const ranges = RANGES_S.map((rangeS) => {
      const choice = h("input", { type: "radio", name: "range", value: rangeS, checked: rangeS === this.#rangeS });
      choice.addEventListener("change", () => this.#chooseRange(rangeS));
      return h("label", {}, choice, h("span", {}, seconds(rangeS)));
    });
    const csv = csvOfServer("forebay-series", () => this.#context.admin.csv("series", { seconds: this.#rangeS }));
    this.#sayFreeze();
    return h(
      "div",
      { class: "toolbar" },
      h("fieldset", { class: "segments" }, h("legend", { class: "unseen" }, text("range")), ...ranges),
      this.#freeze,
      this.#moment,
      h("span", { class: "spring" }),
      csv,
    );
  }

  /** @param {number} rangeS */
  #chooseRange(rangeS) {
    this.#rangeS = rangeS;
    remember("console.range", String(rangeS));
    this.#frozen = null;
    this.#sayFreeze();
    void this.load();
  }

  #build() {
    this.#dispose();
    const colours = chartColours();
    const hooks = {
      onCursor: (/** @type {number | null} */ index) => this.#moveCursor(index),
      onZoom: (/** @type {number} */ fromS, /** @type {number} */ untilS) => this.#zoom(fromS, untilS),
    };
    this.#absent = [];
    const sections = GROUPS.map(({ group, panels }) => {
      const known = panels.filter((one) => !one.device || this.#measured(one));
      this.#absent.push(...panels.filter((one) => !known.includes(one)));
      const charts = known.map((plan) => new Chart(plan, colours, hooks));
      this.#charts.push(...charts);
      const title = h("h2", { id: `group-${group}` }, text(group));
      return charts.length > 0 && h("section", { "aria-labelledby": title.id }, title, h("div", { class: "chart-grid" }, ...charts.map((one) => one.element)));
    });
    fill(this.#grid, ...sections);
    this.#missing.hidden = this.#absent.length === 0;
    const names = this.#absent.map(({ id }) => word("panels", id));
    say(this.#missing, text("notMeasured", { names: names.join(text("comma")) }));
    this.#draw(this.#context.nowS());
    this.#tell();
  }

  /** @param {PanelPlan} plan @returns {boolean} whether the server has ever told of it */
  #measured({ keys }) {
    return keys.some((key) => this.#points.known(key));
  }

  #dispose() {
    for (const one of this.#charts) one.dispose();
    this.#charts = [];
  }

  /** @param {number} untilS the right edge, unless it is frozen */
  #draw(untilS) {
    if (!this.#frozen || !this.#drawnAt.length) this.#take();
    const range = this.#frozen ?? /** @type {[number, number]} */ ([untilS - this.#rangeS, untilS]);
    this.#drawnUntil = untilS;
    for (const chart of this.#charts) {
      const columns = chart.keys.map((key) => this.#drawn.get(key) ?? []);
      chart.draw(this.#points, [this.#drawnAt, ...columns], range);
    }
  }

  /** Copies what is drawn: the points go on under it. */
  #take() {
    this.#drawnAt = [...this.#points.at];
    this.#drawn = new Map([...this.#points.columns].map(([key, column]) => [key, [...column]]));
  }

  /** @param {number | null} index */
  #moveCursor(index) {
    this.#cursor = index;
    this.#telling ||= requestAnimationFrame(() => this.#tell());
  }

  #tell() {
    cancelAnimationFrame(this.#telling);
    this.#telling = 0;
    const index = this.#cursor !== null && this.#cursor < this.#drawnAt.length ? this.#cursor : this.#drawnAt.length - 1;
    const valueOf = (/** @type {string} */ key) => this.#drawn.get(key)?.[index] ?? null;
    for (const one of this.#charts) one.tell(this.#points, valueOf);
    const at = clock(this.#drawnAt[index]);
    say(this.#moment, this.#cursor !== null ? text("atCursor", { time: at }) : this.#frozen ? text("frozenAt", { time: at }) : "");
    this.#table.show(this.#points, this.#drawn, valueOf);
  }

  #toggleFreeze() {
    if (this.#frozen) this.#frozen = null;
    else this.#frozen = [this.#drawnUntil - this.#rangeS, this.#drawnUntil];
    this.#sayFreeze();
    this.#draw(this.#context.nowS());
    this.#tell();
  }

  /**
   * A part of the range is looked at more closely: the clock stops there.
   * @param {number} fromS
   * @param {number} untilS
   */
  #zoom(fromS, untilS) {
    this.#frozen = [fromS, untilS];
    this.#sayFreeze();
    this.#draw(this.#drawnUntil);
  }

  #sayFreeze() {
    this.#freeze.setAttribute("aria-pressed", String(this.#frozen !== null));
    say(this.#freeze, text(this.#frozen ? "unfreeze" : "freeze"));
    this.#grid.dataset.frozen = String(this.#frozen !== null);
  }

  /** The cursor by the keyboard. @param {KeyboardEvent} event */
  #onKey(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -30, PageDown: 30 };
    const last = this.#drawnAt.length - 1;
    if (event.key === "Escape") this.#point(null);
    else if (event.key in steps && last >= 0) {
      const step = steps[/** @type {keyof typeof steps} */ (event.key)];
      this.#point(Math.max(0, Math.min(last, (this.#cursor ?? last) + step)));
    } else return;
    event.preventDefault();
  }

  /** @param {number | null} index */
  #point(index) {
    for (const chart of this.#charts) chart.point(index);
    this.#cursor = index;
    this.#tell();
  }
}

/** @returns {number} */
function rememberedRange() {
  const remembered = Number(recall("console.range"));
  return RANGES_S.includes(remembered) ? remembered : FIRST_RANGE_S;
}
