// @ts-check
/** The charts' colours: those of the style sheet, for a canvas knows no style sheet. */

/** @typedef {{ink: string, grid: string, limit: string, over: string, lines: string[], wash: string[]}} Colours */

/** @returns {Colours} as the theme of now has them */
export function chartColours() {
  const style = getComputedStyle(document.documentElement);
  const read = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
  return {
    ink: read("--ink-3"),
    grid: read("--chart-grid"),
    limit: read("--chart-limit"),
    over: read("--chart-over"),
    lines: ["--line-1", "--line-2", "--line-3"].map(read),
    wash: ["--wash-1", "--wash-1", "--wash-1"].map(read),
  };
}
