// @ts-check
/** Keys that do things, and the sheet that tells of them. A person may turn them off. */

import { byId } from "./dom.js";
import { recall, remember } from "./memory.js";

const OFF = "shortcuts";

/**
 * `Escape` and keys with Ctrl or Cmd work in any case; single keys only outside of fields and
 * dialogs, and while they are not turned off.
 * @param {Record<string, () => void>} deeds key, or `Ctrl+key` -> what it does
 */
export function followShortcuts(deeds) {
  const sheet = byId("help-dialog", HTMLDialogElement);
  const single = byId("help-single", HTMLInputElement);
  single.checked = recall(OFF) !== "off";
  single.addEventListener("change", () => remember(OFF, single.checked ? "on" : "off"));
  byId("help", HTMLButtonElement).addEventListener("click", () => sheet.showModal());
  byId("help-close", HTMLButtonElement).addEventListener("click", () => sheet.close());
  addEventListener("keydown", (event) => {
    if (event.isComposing || event.altKey || document.querySelector("dialog[open]")) return;
    const control = event.ctrlKey || event.metaKey;
    const deed = deeds[control ? `Ctrl+${event.key}` : event.key];
    const typed = !control && event.key !== "Escape";
    if (!deed || (typed && (!single.checked || inField(event.target)))) return;
    event.preventDefault();
    deed();
  });
}

/** @param {EventTarget | null} target */
function inField(target) {
  return target instanceof HTMLTextAreaElement || target instanceof HTMLInputElement || target instanceof HTMLSelectElement;
}
