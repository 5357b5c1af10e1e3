// @ts-check
/** Says what came of a deed: a line that passes, or an error with its mend that stays. */

import { ApiError, isStop } from "../api.js";
import { actionButton } from "../dom.js";
import { h } from "./html.js";
import { errorWords, text } from "./i18n.js";

const SHOWN_MS = 6_000;
const MOST = 4;

/** Read out as they come; they lie over every view. */
const region = h("div", { class: "notes", role: "log", "aria-live": "polite" });

/** @param {HTMLElement} parent */
export function placeNotes(parent) {
  parent.append(region);
}

/** @param {string} words that something was done */
export function note(words) {
  const shown = h("p", { class: "note good" }, words);
  show(shown);
  setTimeout(() => shown.remove(), SHOWN_MS);
}

/** @param {unknown} error */
export function noteError(error) {
  if (isStop(error)) return;
  const shown = errorBox(error);
  const close = actionButton(() => shown.remove());
  close.className = "note-close";
  close.setAttribute("aria-label", text("close"));
  close.textContent = "×";
  shown.classList.add("note");
  shown.append(close);
  show(shown);
}

/**
 * @param {unknown} error
 * @returns {HTMLElement} its title, what the server said, what helps, and by what to find it in the log
 */
export function errorBox(error) {
  const { title, message, mend, code, requestId } = partsOf(error);
  return h(
    "div",
    { class: "error-box", role: "alert" },
    h("p", { class: "error-head" }, h("strong", {}, title), h("code", {}, code)),
    message && h("p", {}, message),
    mend && h("p", { class: "mend" }, mend),
    requestId && h("p", { class: "faint" }, text("request"), " ", h("code", {}, requestId)),
  );
}

/** @param {unknown} error */
function partsOf(error) {
  if (!(error instanceof ApiError)) {
    return { title: text("unknownError"), message: String(error), mend: "", code: "page", requestId: "" };
  }
  const words = errorWords(error.code);
  return {
    title: words?.title ?? text("unknownError"),
    message: error.message,
    mend: words?.mend || error.mend,
    code: error.code,
    requestId: error.requestId,
  };
}

/** @param {HTMLElement} shown */
function show(shown) {
  region.append(shown);
  while (region.children.length > MOST) region.firstElementChild?.remove();
}

/**
 * Does a deed once at a time, and says what came of it.
 * @template T
 * @param {HTMLButtonElement | null} button held until the end
 * @param {() => Promise<T>} act
 * @param {string | ((result: T) => string)} done what is said then; "" for nothing
 * @returns {Promise<T | null>} null where it failed
 */
export async function deed(button, act, done) {
  if (button) button.disabled = true;
  try {
    const result = await act();
    const words = typeof done === "string" ? done : done(result);
    if (words) note(words);
    return result;
  } catch (error) {
    noteError(error);
    return null;
  } finally {
    if (button) button.disabled = false;
  }
}
