// @ts-check
/** Dialogs: one that asks before a deed that hurts, and ones with a form. */

import { seconds } from "./format.js";
import { h } from "./html.js";
import { text } from "./i18n.js";

let made = 0;

/**
 * @typedef {object} Question
 * @property {string} title
 * @property {string} [detail] what will happen
 * @property {string} action the button's word
 * @property {boolean} [harm] whether something is lost or stopped
 * @property {(Node | string)[]} [fields] of a form
 * @property {boolean} [only] there is nothing to decide: one button
 */

/**
 * @param {Question} question
 * @returns {Promise<boolean>} whether the person said yes
 */
export function ask({ title, detail = "", action, harm = false, fields = [], only = false }) {
  const id = `dialog-${(made += 1)}`;
  const leave = h("button", { type: "button", class: "button quiet", value: "no" }, text("cancel"));
  const agree = h("button", { type: "submit", class: `button ${harm ? "harm" : "primary"}` }, action);
  const form = h(
    "form",
    { novalidate: false },
    h("h2", { id }, title),
    detail && h("p", { id: `${id}-detail`, class: "dialog-detail" }, detail),
    ...fields,
    h("div", { class: "dialog-foot" }, !only && leave, agree),
  );
  const dialog = h("dialog", { class: "dialog", "aria-labelledby": id, "aria-describedby": detail ? `${id}-detail` : null }, form);
  return open(dialog, form, harm ? leave : null);
}

/**
 * @param {HTMLDialogElement} dialog
 * @param {HTMLFormElement} form
 * @param {HTMLElement | null} first what Enter meets first, so that it does no harm by habit
 * @returns {Promise<boolean>}
 */
function open(dialog, form, first) {
  form.addEventListener("submit", (event) => {
    event.preventDefault(); // the page's policy lets no form be sent
    dialog.close("yes");
  });
  form.querySelector('button[value="no"]')?.addEventListener("click", () => dialog.close(""));
  document.body.append(dialog);
  dialog.showModal();
  first?.focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    }, { once: true });
  });
}

/**
 * @param {string} label
 * @param {HTMLElement} control
 * @param {string} [hint]
 * @returns {HTMLElement} a control with its name and a hint
 */
export function field(label, control, hint = "") {
  const id = control.id || `field-${(made += 1)}`;
  control.id = id;
  if (hint) control.setAttribute("aria-describedby", `${id}-hint`);
  return h(
    "div",
    { class: "field" },
    h("label", { for: id }, label),
    control,
    hint && h("small", { id: `${id}-hint` }, hint),
  );
}

/**
 * @param {string} id
 * @param {readonly number[]} choicesS
 * @param {number} firstS the one that is chosen at first
 * @returns {HTMLSelectElement} how long something lasts, in seconds
 */
export function durations(id, choicesS, firstS) {
  return h("select", { id }, ...choicesS.map((one) => h("option", { value: one, selected: one === firstS }, seconds(one))));
}
