// @ts-check
/** The series that the charts draw: bounded, in columns, with gaps where nothing was known. */

/** @typedef {import("./types.js").Point} Point */
/** @typedef {import("./types.js").Series} Series */
/** @typedef {(number | null)[]} Column */

/** Steps without a point after which a line is broken rather than drawn across. */
const GAP_STEPS = 3;

export class Points {
  /** @type {number[]} seconds since the epoch */
  at = [];
  /** @type {Map<string, Column>} */
  columns = new Map();
  stepS = 1;
  rangeS = 0;
  /** @type {Series["units"]} */
  units = {};
  /** @type {Series["thresholds"]} */
  thresholds = {};

  /**
   * Takes what the server has kept, in place of everything here.
   * @param {Series} series
   * @param {number} rangeS
   */
  load(series, rangeS) {
    const newest = this.at.length ? this.#row(this.at.length - 1) : null;
    const place = series.columns.indexOf("at");
    this.stepS = Math.max(1, series.step_s);
    this.rangeS = rangeS;
    this.units = series.units;
    this.thresholds = series.thresholds;
    this.at = [];
    this.columns = new Map(series.columns.filter((key) => key !== "at").map((key) => [key, []]));
    for (const row of series.rows) {
      this.#push(Number(row[place]), (key) => row[series.columns.indexOf(key)]);
    }
    // a point of the stream may be newer than what was asked for before it came
    if (newest) this.add(newest);
  }

  /** @param {Point} point the newest; one that is not newer changes nothing */
  add(point) {
    const last = this.at.at(-1) ?? 0;
    if (point.at <= last || this.columns.size === 0) return;
    // on a coarse range the last row is the tip that moves until its step is over
    if (this.stepS > 1 && this.at.length > 1 && point.at - this.at[this.at.length - 2] < this.stepS) this.#pop();
    this.#push(point.at, (key) => point.values[key] ?? null);
    this.#forget(point.at - this.rangeS - this.stepS);
  }

  /** @param {string} key @returns {Column} empty for a key that the server does not know */
  column(key) {
    return this.columns.get(key) ?? [];
  }

  /** @param {string} key @returns {boolean} whether anything was ever measured */
  known(key) {
    return this.column(key).some((value) => value !== null);
  }

  /**
   * @param {number} atS
   * @param {(key: string) => number | null | undefined} valueOf
   */
  #push(atS, valueOf) {
    const last = this.at.at(-1);
    if (last !== undefined && atS - last > GAP_STEPS * this.stepS) this.#append(last + this.stepS, () => null);
    this.#append(atS, valueOf);
  }

  /**
   * @param {number} atS
   * @param {(key: string) => number | null | undefined} valueOf
   */
  #append(atS, valueOf) {
    this.at.push(atS);
    for (const [key, column] of this.columns) column.push(valueOf(key) ?? null);
  }

  #pop() {
    this.at.pop();
    for (const column of this.columns.values()) column.pop();
  }

  /** @param {number} beforeS */
  #forget(beforeS) {
    let old = 0;
    while (old < this.at.length && this.at[old] < beforeS) old += 1;
    if (!old) return;
    this.at.splice(0, old);
    for (const column of this.columns.values()) column.splice(0, old);
  }

  /** @param {number} index @returns {Point} */
  #row(index) {
    const values = Object.fromEntries([...this.columns].map(([key, column]) => [key, column[index]]));
    return { at: this.at[index], light: { color: "green", reasons: [] }, values };
  }
}
