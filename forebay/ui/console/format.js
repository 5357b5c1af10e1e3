// @ts-check
/** Numbers with their units, times and ages, as the chosen language writes them. */

import { currentLanguage, LOCALES, text } from "./i18n.js";

/** @typedef {import("./types.js").Unit} Unit */

export const NOTHING = "–";

/** @type {Map<string, Intl.NumberFormat>} */
const numbers = new Map();

/**
 * @param {number} value
 * @param {number} digits after the point, at most
 * @returns {string}
 */
export function plain(value, digits = 0) {
  const key = `${currentLanguage()}${digits}`;
  let format = numbers.get(key);
  if (!format) {
    format = new Intl.NumberFormat(LOCALES[currentLanguage()], { maximumFractionDigits: digits });
    numbers.set(key, format);
  }
  return format.format(value);
}

/** @param {number} value @returns {number} digits that leave it about three figures */
function digitsFor(value) {
  const size = Math.abs(value);
  if (size >= 100 || size === 0) return 0;
  return size >= 10 ? 1 : 2;
}

const BYTES = ["B", "KB", "MB", "GB", "TB"];

/** @param {number} value */
function bytes(value) {
  let step = 0;
  let left = value;
  while (left >= 1000 && step < BYTES.length - 1) {
    left /= 1024;
    step += 1;
  }
  return `${plain(left, digitsFor(left))} ${BYTES[step]}`;
}

/**
 * @param {number} value
 * @returns {string} "350 ms", "1.24 s", "2 min 5 s", "3 h 20 min", "2 d 4 h"
 */
export function seconds(value) {
  if (value > 0 && value < 0.9995) return `${plain(value * 1000, value < 0.01 ? 1 : 0)} ms`;
  if (value < 99.5 && value !== 60) return text("unitSeconds", { count: plain(value, digitsFor(value)) });
  const whole = Math.round(value);
  const parts = /** @type {const} */ ([["unitDays", 86_400], ["unitHours", 3_600], ["unitMinutes", 60], ["unitSeconds", 1]]);
  const from = parts.findIndex(([, size]) => whole >= size);
  const [big, small] = [parts[from], parts[from + 1]];
  const rest = Math.floor((whole % big[1]) / small[1]);
  const first = text(big[0], { count: Math.floor(whole / big[1]) });
  return rest ? `${first} ${text(small[0], { count: rest })}` : first;
}

/** @type {Record<Unit, (value: number) => string>} */
const UNITS = {
  share: (value) => `${plain(value * 100, value < 0.0995 && value > 0 ? 1 : 0)}%`,
  bytes,
  seconds,
  per_second: (value) => `${plain(value, digitsFor(value))}/s`,
  count: (value) => plain(value, Number.isInteger(value) ? 0 : 1),
  celsius: (value) => `${plain(value)} °C`,
  watts: (value) => `${plain(value)} W`,
};

/**
 * @param {number | null | undefined} value
 * @param {Unit} unit
 * @returns {string}
 */
export function withUnit(value, unit) {
  return value === null || value === undefined ? NOTHING : UNITS[unit](value);
}

/**
 * @param {number | null | undefined} atS seconds since the epoch
 * @param {boolean} [day] the date too
 * @returns {string}
 */
export function clock(atS, day = false) {
  if (!atS) return NOTHING;
  const at = new Date(atS * 1000);
  const two = (/** @type {number} */ part) => String(part).padStart(2, "0");
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return day ? `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${time}` : time;
}

/**
 * @param {number | null | undefined} atS
 * @returns {string} the time, with the date where that is not today's
 */
export function moment(atS) {
  if (!atS) return NOTHING;
  return clock(atS, new Date(atS * 1000).toDateString() !== new Date().toDateString());
}

/**
 * @param {number | null | undefined} atS
 * @returns {string} "12 s ago"
 */
export function ago(atS) {
  if (!atS) return NOTHING;
  const age = Math.max(0, Math.round(Date.now() / 1000 - atS));
  return age < 1 ? text("justNow") : text("ago", { time: seconds(age) });
}
