// @ts-check
/** The chart library. Its small build is a classic script: it leaves its class on the page. */

/** @type {typeof import("../vendor/uPlot.js")} */
export const uPlot = Object.getOwnPropertyDescriptor(globalThis, "uPlot")?.value;
