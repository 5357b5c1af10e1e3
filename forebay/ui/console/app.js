// @ts-check
/** The console's start: a session, or the form that begins one. What is shown in it comes after. */

import { followTheme } from "../theme.js";
import { Admin } from "./admin.js";
import { fill, h } from "./html.js";
import { chooseLanguage, currentLanguage, LOCALES, text } from "./i18n.js";
import { languageSwitch } from "./language_switch.js";
import { errorBox, placeNotes } from "./notes.js";
import { Session } from "./session.js";
import { SignIn } from "./sign_in.js";

class Console {
  #session = new Session((code) => this.#signIn(code));
  #admin = new Admin(this.#session);
  #app = h("div", { class: "app" });
  /** @type {import("./desk.js").Desk | null} */
  #desk = null;
  /** What a session is shown by. */
  #rest = fetchTheRest().then(() => import("./desk.js"));

  async start() {
    document.getElementById("app")?.replaceWith(this.#app);
    placeNotes(document.body);
    if (this.#session.key) await this.#open().catch((error) => fill(this.#app, errorBox(error)));
    else this.#signIn("");
    performance.mark("usable"); // both are measured by bench/page.py
    await this.#rest;
    performance.mark("whole");
  }

  /** @param {string} why */
  #signIn(why) {
    this.#desk?.leave();
    const form = new SignIn(this.#admin, why, (key) => {
      this.#session.begin(key);
      return this.#open();
    });
    this.#words();
    const theme = h("button", { type: "button", class: "icon-button", hidden: true });
    followTheme(theme); // the system's choice, or what was chosen before
    fill(this.#app, h("div", { class: "sign-in-frame" }, h("header", {}, languageSwitch((language) => this.#speak(language))), form.element));
    form.focus();
  }

  async #open() {
    const { Desk } = await this.#rest;
    if (!this.#session.key) return; // it ended meanwhile
    this.#words();
    this.#desk ??= new Desk(this.#admin, this.#app, {
      onLanguage: (language) => this.#speak(language),
      onLeave: () => this.#session.end(),
    });
    this.#desk.open();
  }

  /** @param {"en" | "zh"} language */
  #speak(language) {
    chooseLanguage(language);
    if (this.#session.key) void this.#open(); // every word is made anew
    else this.#signIn("");
  }

  #words() {
    document.documentElement.lang = LOCALES[currentLanguage()];
    document.title = text("title");
  }
}

/**
 * Asks for all that a session shows at once; else each part is known only from the one before.
 * @returns {Promise<void>} which ends when its styles are in force and the charts' script, no module, has run
 */
async function fetchTheRest() {
  const rest = document.querySelector("template#rest");
  if (!(rest instanceof HTMLTemplateElement)) throw new Error("the page has no rest");
  const needed = [...rest.content.querySelectorAll("script, link[rel=stylesheet]")].map(loaded);
  document.head.append(rest.content);
  await Promise.all(needed);
}

/**
 * @param {Element} file
 * @returns {Promise<void>}
 */
function loaded(file) {
  return new Promise((resolve, reject) => {
    file.addEventListener("load", () => resolve());
    file.addEventListener("error", () => reject(new Error(`no ${file.getAttribute("src") ?? file.getAttribute("href")}`)));
  });
}

void new Console().start();
