// @ts-check
/** One chart: its title, the values at the shared cursor, its lines, and its limit. */

import { clock, plain, withUnit } from "./format.js";
import { fill, h, say } from "./html.js";
import { text, word } from "./i18n.js";
import { LIMIT_IN_SIGHT } from "./panels.js";
import { uPlot } from "./uplot.js";

/** @typedef {import("./panels.js").PanelPlan} PanelPlan */
/** @typedef {import("./points.js").Points} Points */
/** @typedef {import("./types.js").Unit} Unit */
/** @typedef {import("./colours.js").Colours} Colours */
/** @typedef {import("../vendor/uPlot.js")} Plot */
/** @typedef {import("../vendor/uPlot.js").AlignedData} AlignedData */
/**
 * @typedef {object} Hooks
 * @property {(index: number | null) => void} onCursor
 * @property {(fromS: number, untilS: number) => void} onZoom
 */

const HEIGHT = 96;
const SYNC = "forebay";
const LEFT_AXIS = 42;
/** Steps of the axis of time, s. */
const TIME_STEPS = [5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 10_800, 21_600];
const GB = 2 ** 30;
/** Steps of an axis of bytes: whole and half gigabytes. */
const BYTE_STEPS = [0.5, 1, 2, 4, 8, 16, 32, 64, 128].map((one) => one * GB);

export class Chart {
  #plan;
  #colours;
  #hooks;
  /** @type {Plot | null} */
  #plot = null;
  #frame = h("div", { class: "plot", "aria-hidden": "true" });
  #values = h("span", { class: "values" });
  #limitWords = h("span", { class: "limit" });
  /** @type {HTMLElement[]} */
  #figures = [];
  /** @type {[number, number]} */
  #range = [0, 1];
  /** @type {Unit} */
  #unit = "count";
  /** @type {number | null} */
  #limit = null;
  #width = 0;
  /** @type {AlignedData | null} */
  #data = null;
  #resized = new ResizeObserver((entries) => this.#resize(entries[0].contentRect.width));

  /**
   * @param {PanelPlan} plan
   * @param {Colours} colours
   * @param {Hooks} hooks
   */
  constructor(plan, colours, hooks) {
    this.#plan = plan;
    this.#colours = colours;
    this.#hooks = hooks;
    this.#figures = plan.keys.map(() => h("b"));
    const titleId = `chart-${plan.id}`;
    fill(this.#values, ...plan.keys.map((key, at) => this.#figure(key, at)));
    const caption = h("figcaption", {}, h("span", { class: "chart-title", id: titleId }, word("panels", plan.id)), this.#limitWords, this.#values);
    this.element = h("figure", { class: "chart", "data-chart": plan.id, "aria-labelledby": titleId }, caption, this.#frame);
    this.#resized.observe(this.#frame);
  }

  /** @returns {string[]} its series */
  get keys() {
    return this.#plan.keys;
  }

  /**
   * @param {Points} points
   * @param {AlignedData} data the time, then a column for each key
   * @param {[number, number]} range seconds since the epoch
   */
  draw(points, data, range) {
    this.#unit = points.units[this.#plan.keys[0]] ?? "count";
    this.#limit = limitOf(this.#plan, points);
    this.#data = data;
    this.#range = range;
    if (!this.#plot && this.#width > 0) this.#plot = this.#made();
    else this.#plot?.setData(data);
  }

  /**
   * Writes the figures of one moment.
   * @param {Points} points
   * @param {(key: string) => number | null} valueOf
   */
  tell(points, valueOf) {
    const over = this.#plan.keys.some((key) => isOver(points, key, valueOf(key)));
    const beside = this.#plan.beside;
    this.#plan.keys.forEach((key, at) => {
      const more = beside && valueOf(beside) !== null ? ` · ${withUnit(valueOf(beside), points.units[beside] ?? "count")}` : "";
      say(this.#figures[at], withUnit(valueOf(key), points.units[key] ?? "count") + more);
    });
    const limit = this.#limit === null ? "" : text(over ? "overLimit" : "limitIs", { limit: withUnit(this.#limit, this.#unit) });
    say(this.#limitWords, limit);
    this.element.dataset.over = String(over);
  }

  /** @param {number | null} index of a point, null for none */
  point(index) {
    const plot = this.#plot;
    if (!plot) return;
    const left = index === null ? -10 : plot.valToPos(plot.data[0][index] ?? 0, "x");
    plot.setCursor({ left, top: index === null ? -10 : 1 });
  }

  dispose() {
    this.#resized.disconnect();
    this.#plot?.destroy();
  }

  /** @param {string} key @param {number} at */
  #figure(key, at) {
    const several = this.#plan.keys.length > 1;
    return h("span", { class: "value", "data-line": at }, several && h("i", {}, word("lines", key)), this.#figures[at]);
  }

  /** @param {number} width */
  #resize(width) {
    this.#width = Math.floor(width);
    if (this.#width <= 0) return;
    if (this.#plot) this.#plot.setSize({ width: this.#width, height: HEIGHT });
    else if (this.#data) this.#plot = this.#made();
  }

  #made() {
    return new uPlot(this.#options(), this.#data ?? undefined, this.#frame);
  }

  /** @returns {import("../vendor/uPlot.js").Options} */
  #options() {
    const { ink, grid, lines } = this.#colours;
    const font = "11px system-ui, sans-serif";
    /** @type {import("../vendor/uPlot.js").Axis} */
    const axis = { stroke: ink, font, ticks: { show: false }, grid: { stroke: grid, width: 1 } };
    return {
      width: this.#width,
      height: HEIGHT,
      padding: [6, 16, 0, 0],
      legend: { show: false },
      cursor: {
        sync: { key: SYNC },
        y: false,
        drag: { x: true, y: false, setScale: false },
        points: { size: 6 },
      },
      scales: { x: { time: true, range: () => this.#range }, y: { range: (_, __, most) => this.#upright(most) } },
      axes: [
        { ...axis, size: 20, gap: 3, space: 56, incrs: TIME_STEPS, grid: { show: false }, values: (_, splits) => splits.map((at) => this.#time(at)) },
        { ...axis, size: LEFT_AXIS, gap: 5, space: 26, ...(this.#unit === "bytes" ? { incrs: BYTE_STEPS } : {}), values: (_, splits) => splits.map((value) => axisWords(value, this.#unit)) },
      ],
      series: [{}, ...this.#plan.keys.map((_, at) => ({ stroke: lines[at], width: 1.5, fill: this.#fillOf(at), points: { show: false } }))],
      hooks: {
        drawAxes: [(plot) => this.#drawLimit(plot)], // over the grid, under the lines
        setCursor: [(plot) => this.#hooks.onCursor(plot.cursor.idx ?? null)],
        setSelect: [(plot) => this.#zoom(plot)],
      },
    };
  }

  /** One line lies on a wash of its colour; several would hide each other's. @param {number} at */
  #fillOf(at) {
    return this.#plan.keys.length === 1 ? this.#colours.wash[at] : undefined;
  }

  /** @param {number} atS */
  #time(atS) {
    const words = clock(atS);
    return this.#range[1] - this.#range[0] <= 300 ? words : words.slice(0, 5);
  }

  /** @param {number | null} most @returns {[number, number]} */
  #upright(most) {
    const highest = Math.max(most ?? 0, this.#plan.top ?? 0);
    const limit = this.#limit ?? 0;
    const seen = limit && (most ?? 0) >= limit * LIMIT_IN_SIGHT ? Math.max(highest, limit) : highest;
    if (this.#unit === "share") return [0, Math.max(1, seen)];
    return [0, seen * 1.08];
  }

  /** @param {Plot} plot */
  #drawLimit(plot) {
    if (this.#limit === null) return;
    const y = Math.round(plot.valToPos(this.#limit, "y", true));
    const { left, top, width } = plot.bbox;
    if (y < top) return;
    const { ctx } = plot;
    ctx.save();
    ctx.fillStyle = this.#colours.over;
    ctx.fillRect(left, top, width, y - top);
    ctx.strokeStyle = this.#colours.limit;
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(left, y);
    ctx.lineTo(left + width, y);
    ctx.stroke();
    ctx.restore();
  }

  /** @param {Plot} plot */
  #zoom(plot) {
    const { left, width } = plot.select;
    if (width < 4) return;
    this.#hooks.onZoom(plot.posToVal(left, "x"), plot.posToVal(left + width, "x"));
    plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
  }
}

/**
 * @param {PanelPlan} plan
 * @param {Points} points
 */
function limitOf(plan, points) {
  const key = plan.keys.find((one) => points.thresholds[one] !== undefined);
  return key === undefined ? null : points.thresholds[key];
}

/**
 * @param {Points} points
 * @param {string} key
 * @param {number | null} value
 */
export function isOver(points, key, value) {
  const limit = points.thresholds[key];
  return limit !== undefined && value !== null && value > limit;
}

/** @param {number} value @param {Unit} unit */
function axisWords(value, unit) {
  if (value === 0) return "0";
  if (unit === "count" && value >= 1000) return `${plain(value / 1000, 1)}k`;
  if (unit === "bytes" && value >= GB) return `${plain(value / GB, 1)} GB`;
  if (unit === "per_second" || unit === "celsius" || unit === "watts") return plain(value, 1);
  return withUnit(value, unit);
}
