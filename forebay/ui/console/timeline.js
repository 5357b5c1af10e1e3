// @ts-check
/** A task's way, drawn: a row for each stage, where in time it lay and how long it took. */

import { clock, seconds } from "./format.js";
import { h } from "./html.js";
import { text, word } from "./i18n.js";

/** @typedef {import("./types.js").Step} Step */
/** @typedef {Step & {tookS: number, open: boolean}} Span */

const ENDS = new Set(["finished", "failed", "cancelled", "expired", "dead", "shed", "returned"]);
/** A bar is at least so wide, in percent: what took a moment is seen too. */
const LEAST_WIDTH = 0.6;

/**
 * @param {Step[]} steps in order of time
 * @param {number} nowS
 * @returns {HTMLElement}
 */
export function drawTimeline(steps, nowS) {
  const spans = spansOf(steps, nowS);
  if (!spans.length) return h("p", { class: "faint" }, text("noTimeline"));
  const beginS = spans[0].at;
  const wholeS = Math.max(0.001, ...spans.map((one) => one.at + one.tookS - beginS));
  const heads = [text("stage"), text("began"), h("span", { class: "unseen" }, text("timeline")), text("took")];
  const rows = spans.map((one, at) => row(one, spans[at - 1], beginS, wholeS));
  return h(
    "table",
    { class: "timeline", "aria-label": text("timeline") },
    h("thead", {}, h("tr", {}, ...heads.map((one) => h("th", { scope: "col" }, one)))),
    h("tbody", {}, ...rows),
  );
}

/**
 * @param {Step[]} steps
 * @param {number} nowS
 * @returns {Span[]} each stage lasts until the next one begins; the last one until now, or is an end
 */
export function spansOf(steps, nowS) {
  return steps.map((step, at) => {
    const next = steps[at + 1];
    const open = !next && !ENDS.has(step.stage);
    const until = next ? next.at : open ? nowS : step.at;
    return { ...step, tookS: Math.max(0, until - step.at), open };
  });
}

/**
 * @param {Span} span
 * @param {Span | undefined} before
 * @param {number} beginS
 * @param {number} wholeS
 */
function row(span, before, beginS, wholeS) {
  const mark = h("i", { class: "span", "data-stage": span.stage, "data-open": String(span.open) });
  const width = Math.max(LEAST_WIDTH, (100 * span.tookS) / wholeS);
  mark.style.left = `${Math.min(100 - LEAST_WIDTH, (100 * (span.at - beginS)) / wholeS)}%`;
  mark.style.width = `${width}%`;
  const fresh = span.attempt > 0 && span.attempt !== (before?.attempt ?? 0);
  const about = [fresh ? text("attempt", { number: span.attempt }) : "", fresh ? span.worker : "", span.why].filter(Boolean).join(" · ");
  const ending = ENDS.has(span.stage);
  return h(
    "tr",
    { "data-stage": span.stage },
    h("th", { scope: "row" }, word("taskStates", span.stage), about && h("small", {}, about)),
    h("td", { class: "number", title: clock(span.at, true) }, `+${seconds(Math.max(0, span.at - beginS))}`),
    h("td", { class: "way" }, mark),
    h("td", { class: "number" }, ending ? "" : seconds(span.tookS) + (span.open ? " …" : "")),
  );
}
