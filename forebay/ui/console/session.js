// @ts-check
/** The administrator's key: asked for once, kept in this tab only until it is closed. */

import { recallHere, rememberHere } from "../memory.js";

const KEY = "admin-key";

export class Session {
  // where storage is refused, the key holds until a reload
  #key = recallHere(KEY) ?? "";
  /** @type {(code: string) => void} */
  #onEnd;

  /** @param {(code: string) => void} onEnd called when the server takes the key no more, or with "" */
  constructor(onEnd) {
    this.#onEnd = onEnd;
  }

  /** @returns {string} "" for none */
  get key() {
    return this.#key;
  }

  /** @param {string} key that the server has accepted */
  begin(key) {
    this.#key = key;
    rememberHere(KEY, key);
  }

  /** @param {string} [code] of the error that ended it; none: the person left */
  end(code = "") {
    if (!this.#key) return; // several requests may be refused at once
    this.#key = "";
    rememberHere(KEY, null);
    this.#onEnd(code);
  }
}
