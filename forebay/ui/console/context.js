// @ts-check
/** What every view is given. */

/** @typedef {import("./admin.js").Admin} Admin */
/** @typedef {import("./points.js").Points} Points */
/** @typedef {import("./types.js").AlertBoard} AlertBoard */
/**
 * @typedef {object} Context
 * @property {Admin} admin
 * @property {Points} points
 * @property {() => number} nowS the server's time
 * @property {Record<string, string>} kept filters and the like, which outlive a view
 */
/**
 * @typedef {object} View one page of the console. It is made anew for another language.
 * @property {HTMLElement} element
 * @property {() => void | Promise<void>} show it comes in sight
 * @property {() => void} hide
 * @property {(nowS: number) => void} [tick] once a second while it is in sight
 * @property {() => void | Promise<void>} [load] asks the server anew
 * @property {() => void} [onWorkers] the list of workers has changed
 */

export {};
