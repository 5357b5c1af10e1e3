// @ts-check
/** The key that the server wants, where it wants one: asked of the person, kept in this tab. */

import { byId } from "./dom.js";
import { recallHere, rememberHere } from "./memory.js";

const KEY = "key";

/** Where storage is refused, the key holds until a reload. */
let key = recallHere(KEY) ?? "";
/** The person has said "not now". */
let declined = false;
/** @type {Promise<boolean> | null} */
let asking = null;

/** @returns {string} the key to send, "" for none */
export function currentKey() {
  return key;
}

/**
 * Asks the person for a key, all who want one at a time together.
 * @param {string} refused the key that was just sent in vain, "" for none
 * @param {boolean} insists ask even though the person has said "not now" before
 * @returns {Promise<boolean>} whether there is another key to try
 */
export async function askForKey(refused, insists) {
  if (key && key !== refused) return true; // one was given while that request was under way
  if (refused) keep("");
  if (declined && !insists) return false;
  asking ??= openDialog(refused !== "").finally(() => {
    asking = null;
  });
  return asking;
}

/** @param {string} given */
function keep(given) {
  key = given;
  rememberHere(KEY, given || null);
}

/**
 * @param {boolean} wrong whether a key was refused
 * @returns {Promise<boolean>} whether a key was given
 */
function openDialog(wrong) {
  const dialog = byId("key-dialog", HTMLDialogElement);
  const field = byId("key", HTMLInputElement);
  byId("key-wrong", HTMLParagraphElement).hidden = !wrong;
  field.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      keep(dialog.returnValue === "use" ? field.value.trim() : "");
      field.value = "";
      declined = key === "";
      resolve(!declined);
    }, { once: true });
  });
}

/** Lets the dialog's form end the dialog. */
export function followKeyDialog() {
  const dialog = byId("key-dialog", HTMLDialogElement);
  byId("key-form", HTMLFormElement).addEventListener("submit", (event) => {
    event.preventDefault(); // the page's policy lets no form be sent
    dialog.close("use");
  });
  byId("key-leave", HTMLButtonElement).addEventListener("click", () => dialog.close(""));
}
