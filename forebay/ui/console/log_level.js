// @ts-check
/** What is logged from which level on, and a button that changes it for a while. */

import { ask, durations, field } from "./confirm.js";
import { moment } from "./format.js";
import { h, say } from "./html.js";
import { text, word } from "./i18n.js";
import { deed } from "./notes.js";

/** @typedef {import("./admin.js").Admin} Admin */
/** @typedef {import("./types.js").LogLevel} LogLevel */

const LEVELS = ["debug", "info", "warning", "error"];
/** Back to what the settings say. */
const CONFIGURED = "configured";
const DURATIONS_S = [600, 3_600, 14_400, 86_400];
const FIRST_S = 600;

export class LogLevelButton {
  #admin;
  /** @type {LogLevel} */
  #now = { level: "", until: null, by: null, configured: "" };
  element = h("button", { type: "button", class: "button quiet", id: "log-level", hidden: true });

  /** @param {Admin} admin */
  constructor(admin) {
    this.#admin = admin;
    this.element.addEventListener("click", () => void this.#ask());
  }

  async look() {
    this.#tell(await this.#admin.get("log-level"));
  }

  /** @param {LogLevel} now */
  #tell(now) {
    this.#now = now;
    const level = word("logLevels", now.level);
    say(this.element, now.until ? text("logLevelUntil", { level, time: moment(now.until) }) : text("logLevelNow", { level }));
    this.element.title = now.by ? text("logLevelBy", { by: now.by }) : "";
    this.element.hidden = false;
  }

  async #ask() {
    const { level, until, configured } = this.#now;
    const choices = [...LEVELS.map((one) => ({ value: one, name: word("logLevels", one) })), { value: CONFIGURED, name: text("logLevelConfigured", { level: word("logLevels", configured) }) }];
    const first = until ? level : CONFIGURED;
    const levels = h("select", { id: "log-level-wanted" }, ...choices.map(({ value, name }) => h("option", { value, selected: value === first }, name)));
    const lasting = durations("log-level-for", DURATIONS_S, FIRST_S);
    const follow = () => (lasting.disabled = levels.value === CONFIGURED); // that needs no end
    levels.addEventListener("change", follow);
    follow();
    const fields = [field(text("logLevelLeast"), levels), field(text("duration"), lasting)];
    if (!(await ask({ title: text("logLevelTitle"), detail: text("logLevelDetail"), action: text("apply"), fields }))) return;
    await this.#want(levels.value, Number(lasting.value));
  }

  /**
   * @param {string} level
   * @param {number} forS
   */
  async #want(level, forS) {
    const act = () => /** @type {Promise<LogLevel>} */ (this.#admin.act("PUT", "log-level", { level, for_s: forS }));
    const now = await deed(this.element, act, ({ level: wanted }) => text("logLevelIs", { level: word("logLevels", wanted) }));
    if (now) this.#tell(now);
  }
}
