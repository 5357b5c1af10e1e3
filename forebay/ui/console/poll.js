// @ts-check
/** Looks again and again while a view is in sight: one look at a time, and says when it fails. */

import { fill, h } from "./html.js";
import { errorBox } from "./notes.js";

export class Poll {
  #look;
  #everyMs;
  #timer = 0;
  #turn = 0;
  #failed = "";
  /** Where it says why there is nothing new. */
  element = h("div", { class: "poll-error" });

  /**
   * @param {() => Promise<void>} look
   * @param {number} everyMs
   */
  constructor(look, everyMs) {
    this.#look = look;
    this.#everyMs = everyMs;
  }

  /** Looks at once, and then now and then until `stop`. */
  async start() {
    this.stop();
    await this.#go((this.#turn += 1));
  }

  stop() {
    this.#turn += 1;
    clearTimeout(this.#timer);
  }

  /** @param {number} turn */
  async #go(turn) {
    try {
      if (!document.hidden) await this.#look();
      if (turn === this.#turn) this.#tell(null);
    } catch (error) {
      if (turn === this.#turn) this.#tell(error);
    }
    if (turn === this.#turn) this.#timer = setTimeout(() => void this.#go(turn), this.#everyMs);
  }

  /** Says a failure once, not at every look. @param {unknown} error null for none */
  #tell(error) {
    const failed = error === null ? "" : String(error);
    if (failed === this.#failed) return;
    this.#failed = failed;
    fill(this.element, error !== null && errorBox(error));
  }
}

/** A view that asks the server again and again while it is in sight. */
export class PolledView {
  /**
   * @param {import("./context.js").Context} context
   * @param {number} everyMs
   */
  constructor(context, everyMs) {
    this.context = context;
    this.poll = new Poll(() => this.look(), everyMs);
  }

  show() {
    return this.poll.start();
  }

  hide() {
    this.poll.stop();
  }

  /** Asks, and shows what the server says; each view has its own. @returns {Promise<void>} */
  async look() {}
}
