// @ts-check
/** Asks for an administrator's key, and tries it before anything is shown. */

import { ApiError } from "../api.js";
import { h } from "./html.js";
import { text } from "./i18n.js";
import { errorBox } from "./notes.js";

/** @typedef {import("./admin.js").Admin} Admin */

const HOW = "forebay keys create me --scope admin";
/** What only says that the key is the wrong one: the form has better words for it. */
const WRONG = new Set(["unauthorized", "forbidden"]);

export class SignIn {
  #admin;
  #done;
  #field = h("input", { type: "password", id: "admin-key", required: true, autocomplete: "off", spellcheck: "false", "aria-describedby": "admin-key-note" });
  #send = h("button", { type: "submit", class: "button primary" }, text("signIn"));
  #trouble = h("div", { role: "alert" });

  /**
   * @param {Admin} admin
   * @param {string} why the code that ended the session before, "" for none
   * @param {(key: string) => Promise<void>} done told of a key that is good
   */
  constructor(admin, why, done) {
    this.#admin = admin;
    this.#done = done;
    const form = h(
      "form",
      { class: "sign-in-form" },
      h("h1", {}, text("signInTitle")),
      h("p", { class: "faint" }, text("signInNote")),
      h("label", { for: "admin-key" }, text("adminKey")),
      this.#field,
      this.#trouble,
      h("div", { class: "dialog-foot" }, this.#send),
      h("p", { class: "faint", id: "admin-key-note" }, text("adminKeyNote")),
      h("p", { class: "how" }, text("adminKeyHow"), h("code", {}, HOW)),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.#try();
    });
    if (why) this.#say(text("keyEnded"));
    this.element = h("main", { class: "sign-in", id: "main" }, form);
  }

  focus() {
    this.#field.focus();
  }

  async #try() {
    const key = this.#field.value.trim();
    this.#send.disabled = true;
    try {
      if (!/^[!-~]+$/.test(key)) throw new ApiError("", { code: "unauthorized" }); // no header could hold it
      await this.#admin.tryKey(key);
      await this.#done(key);
    } catch (error) {
      this.#refuse(error);
    } finally {
      this.#send.disabled = false;
    }
  }

  /** @param {unknown} error */
  #refuse(error) {
    if (error instanceof ApiError && WRONG.has(error.code)) {
      this.#field.value = "";
      this.#say(text(error.code === "forbidden" ? "keyNotAdmin" : "keyWrong"));
    } else this.#trouble.replaceChildren(errorBox(error));
    this.#field.focus();
  }

  /** @param {string} words */
  #say(words) {
    this.#trouble.replaceChildren(h("p", { class: "sign-in-wrong" }, words));
  }
}
