// @ts-check
/** What may be done to a task; each asks first where something is lost. */

import { ask } from "./confirm.js";
import { text } from "./i18n.js";
import { deed } from "./notes.js";

/** @typedef {import("./admin.js").Admin} Admin */
/** @typedef {import("./types.js").Task} Task */

const ENDS = new Set(["finished", "failed", "cancelled", "expired", "dead", "shed"]);

/** @type {Record<string, string>} */
export const TONES = {
  queued: "warn", delayed: "warn", suspect: "warn", received: "warn", returned: "bad",
  running: "busy", leased: "busy", encoding: "busy", prefill: "busy", decode: "busy",
  finished: "good", failed: "bad", dead: "bad", expired: "bad", cancelled: "faint",
};

/** @param {Task} task */
export function canCancel(task) {
  return !ENDS.has(task.state);
}

/**
 * @param {Admin} admin
 * @param {string} id
 * @param {HTMLButtonElement} button
 */
export async function cancelTask(admin, id, button) {
  if (!(await ask({ title: text("cancelTitle"), detail: text("cancelDetail", { id }), action: text("cancelTask"), harm: true }))) return;
  await deed(button, () => admin.act("POST", `tasks/${encodeURIComponent(id)}/cancel`), text("cancelled", { id }));
}

/**
 * @param {Admin} admin
 * @param {string} id of a dead letter
 * @param {HTMLButtonElement} button
 */
export async function replayTask(admin, id, button) {
  await deed(button, () => admin.act("POST", `tasks/${encodeURIComponent(id)}/retry`), text("replayed", { id }));
}

/**
 * @param {Admin} admin
 * @param {string} id of a dead letter
 * @param {HTMLButtonElement} button
 */
export async function forgetTask(admin, id, button) {
  if (!(await ask({ title: text("forgetTitle"), detail: text("forgetDetail", { id }), action: text("forget"), harm: true }))) return;
  await deed(button, () => admin.act("DELETE", `dead-letters/${encodeURIComponent(id)}`), text("forgotten", { id }));
}
