// @ts-check
/** Pieces that several views are made of. */

import { saveCsv, toCsv } from "./csv.js";
import { h } from "./html.js";
import { text } from "./i18n.js";
import { deed } from "./notes.js";

/**
 * @param {string} title
 * @param {HTMLElement} content
 * @param {(HTMLElement | false)[]} more beside the title
 * @returns {HTMLElement}
 */
export function part(title, content, ...more) {
  const head = h("div", { class: "panel-head" }, h("h2", {}, title), h("span", { class: "spring" }), ...more);
  return h("section", { class: "panel flush", "aria-label": title }, head, content);
}

/**
 * @template Row
 * @param {import("./table.js").Table<Row>} table what it shows is all there is
 * @param {string} name of the file
 * @returns {HTMLButtonElement}
 */
export function csvOfTable(table, name) {
  const button = csvButton(name);
  button.addEventListener("click", () => saveCsv(toCsv(...table.plain()), name));
  return button;
}

/**
 * @param {string} name of the file
 * @param {() => Promise<Blob>} fetchIt the list as the server writes it
 * @returns {HTMLButtonElement}
 */
export function csvOfServer(name, fetchIt) {
  const button = csvButton(name);
  button.addEventListener("click", async () => {
    const file = await deed(button, fetchIt, "");
    if (file) saveCsv(file, name);
  });
  return button;
}

/** @param {string} name */
function csvButton(name) {
  return h("button", { type: "button", class: "button quiet csv", "data-csv": name }, text("csv"));
}
