// @ts-check
/** The sheet of past questions: found, looked at again, forgotten, saved as a file. */

import { actionButton, byId, flash, listItem, made } from "./dom.js";
import { asJson, asMarkdown, saveAs } from "./export.js";
import { currentLanguage, text } from "./i18n.js";

/** @typedef {import("./entries.js").Entry} Entry */

const LONGEST_SHOWN = 160;

export class History {
  #dialog = byId("history-dialog", HTMLDialogElement);
  #list = byId("history-list", HTMLUListElement);
  #search = byId("history-search", HTMLInputElement);
  #clear = byId("history-clear", HTMLButtonElement);
  #entries;
  #look;
  /** @type {Entry[]} */
  #found = [];
  /** @type {string[]} */
  #addresses = [];
  #sure = false;

  /**
   * @param {import("./entries.js").Entries} entries
   * @param {(entry: Entry) => void} look called with the entry that was chosen
   */
  constructor(entries, look) {
    this.#entries = entries;
    this.#look = look;
    byId("history-close", HTMLButtonElement).addEventListener("click", () => this.#dialog.close());
    byId("history-json", HTMLButtonElement).addEventListener("click", () => saveAs(asJson(this.#found), "forebay-history.json"));
    byId("history-markdown", HTMLButtonElement).addEventListener("click", () => saveAs(asMarkdown(this.#found), "forebay-history.md"));
    this.#clear.addEventListener("click", () => void this.#forgetAll());
    this.#search.addEventListener("input", () => this.#draw());
    this.#dialog.addEventListener("close", () => this.#letGo());
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) this.#dialog.close(); // beside the sheet
    });
  }

  async open() {
    if (this.#dialog.open) return;
    this.#search.value = "";
    this.#hesitate();
    await this.#load();
    this.#dialog.showModal();
  }

  async #load() {
    this.#found = await this.#entries.list();
    this.#draw();
  }

  #draw() {
    this.#letGo();
    const wanted = this.#search.value.trim().toLowerCase();
    const shown = this.#found.filter((entry) => `${entry.question}\n${saidBy(entry)}`.toLowerCase().includes(wanted));
    this.#list.replaceChildren(...shown.map((entry) => this.#item(entry)));
    byId("history-empty", HTMLParagraphElement).hidden = shown.length > 0;
    for (const id of ["history-json", "history-markdown", "history-clear"]) {
      byId(id, HTMLButtonElement).disabled = this.#found.length === 0;
    }
  }

  /** @param {Entry} entry */
  #item(entry) {
    const open = actionButton(() => {
      this.#dialog.close();
      this.#look(entry);
    });
    open.className = "past";
    const blob = entry.pictures[0]?.blob;
    if (blob) open.append(this.#thumb(blob));
    const said = saidBy(entry).slice(0, LONGEST_SHOWN);
    const time = made("time", "", new Date(entry.outcome.askedAt).toLocaleString(currentLanguage() === "zh" ? "zh-CN" : "en"));
    time.dateTime = new Date(entry.outcome.askedAt).toISOString();
    open.append(made("span", "past-words", made("strong", "", entry.question), made("span", "", said), time));
    const forget = actionButton(() => void this.#forget(entry.id));
    forget.className = "icon-button forget";
    forget.textContent = "×";
    forget.setAttribute("aria-label", text("forgetOne", { question: entry.question.slice(0, LONGEST_SHOWN) }));
    return listItem(open, forget);
  }

  /** @param {Blob} blob */
  #thumb(blob) {
    const image = made("img", "");
    image.src = URL.createObjectURL(blob);
    image.alt = "";
    this.#addresses.push(image.src);
    return image;
  }

  /** @param {string} id */
  async #forget(id) {
    await this.#entries.remove(id);
    await this.#load();
    this.#search.focus();
  }

  /** The first click asks whether it is meant. */
  async #forgetAll() {
    if (!this.#sure) {
      this.#sure = true;
      this.#clear.textContent = text("clearSure");
      return;
    }
    this.#hesitate();
    await this.#entries.clear();
    await this.#load();
    flash(this.#clear, text("cleared"));
  }

  #hesitate() {
    this.#sure = false;
    this.#clear.textContent = text("clear");
  }

  #letGo() {
    for (const address of this.#addresses) URL.revokeObjectURL(address);
    this.#addresses = [];
  }
}

/** @param {Entry} entry */
function saidBy({ outcome, opinion, open }) {
  if (open) return "…";
  return opinion ? [opinion.result, ...opinion.reasons].join(" · ") : outcome.text || (outcome.error?.code ?? "");
}
