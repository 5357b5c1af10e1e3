// @ts-check
/** The lamp in the header: which model is served, and whether it answers now. */

import { readiness, servedModel } from "./api.js";
import { byId } from "./dom.js";
import { text } from "./i18n.js";

const PERIOD_MS = 10_000;
const PERIOD_STARTING_MS = 1_500;
const WORDS = /** @type {const} */ ({ ready: "ready", waiting: "notReady", gone: "gone" });

export class Status {
  #lamp = byId("status", HTMLElement);
  #words = byId("status-text", HTMLElement);
  #model = "";
  #onVision;
  /** @type {"unknown" | "ready" | "waiting" | "gone"} */
  #state = "unknown";

  /** @param {(vision: import("./api.js").Vision) => void} onVision told how the model sees, once it is known */
  constructor(onVision) {
    this.#onVision = onVision;
  }

  /**
   * @param {boolean} [wanted] a person waits for it: a key that lacks is asked for again
   * @returns {Promise<string>} the model's name, asked for once. Throws ApiError.
   */
  async model(wanted = true) {
    if (this.#model) return this.#model;
    const served = await servedModel(wanted);
    this.#model = served.name;
    if (served.vision) this.#onVision(served.vision);
    return this.#model;
  }

  /** Looks now and then, only while the page is in sight. */
  async follow() {
    for (;;) {
      if (!document.hidden) await this.#look();
      const pause = this.#state === "ready" ? PERIOD_MS : PERIOD_STARTING_MS;
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }

  /** Writes the state in the language of now. */
  render() {
    this.#lamp.dataset.state = this.#state;
    if (this.#state === "unknown") return;
    const word = text(WORDS[this.#state]);
    this.#words.textContent = this.#model ? `${this.#model} · ${word}` : word;
  }

  async #look() {
    const state = await readiness();
    if (state === "gone") this.#model = ""; // another server may answer next
    else await this.model(false).catch(() => ""); // it is asked for again with the next question
    this.#state = state;
    this.render();
  }
}
