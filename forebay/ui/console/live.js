// @ts-check
/** Follows the stream of points. When it is cut it says so and comes back by itself. */

import { isStop } from "../api.js";
import { readEvents } from "../sse.js";

/** @typedef {import("./admin.js").Admin} Admin */
/** @typedef {import("./types.js").Point} Point */
/** @typedef {"connecting" | "live" | "cut"} StreamState */
/**
 * @typedef {object} Listener
 * @property {(point: Point) => void} onPoint
 * @property {() => void} onWorkers their list has changed
 * @property {(state: StreamState) => void} onState
 */

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 5_000;
/** A point comes each second; where none has come for so long, the connection is dead. */
const SILENCE_MS = 6_000;

export class Live {
  #admin;
  #listener;
  /** @type {AbortController | null} */
  #stop = null;
  /** @type {(() => void) | null} */
  #wake = null;

  /**
   * @param {Admin} admin
   * @param {Listener} listener
   */
  constructor(admin, listener) {
    this.#admin = admin;
    this.#listener = listener;
    addEventListener("online", () => this.#wake?.());
  }

  start() {
    this.stop();
    this.#stop = new AbortController();
    void this.#follow(this.#stop.signal);
  }

  stop() {
    this.#stop?.abort();
    this.#wake?.();
    this.#stop = null;
  }

  /** @param {AbortSignal} stopped */
  async #follow(stopped) {
    let pauseMs = FIRST_PAUSE_MS;
    this.#listener.onState("connecting");
    while (!stopped.aborted) {
      const begun = Date.now();
      try {
        await this.#read(stopped);
      } catch (error) {
        if (!isStop(error)) console.warn("the stream was cut:", error);
      }
      if (stopped.aborted) return;
      this.#listener.onState("cut");
      if (Date.now() - begun > SILENCE_MS) pauseMs = FIRST_PAUSE_MS; // it had been open
      await this.#pause(pauseMs);
      pauseMs = Math.min(LONGEST_PAUSE_MS, pauseMs * 2);
    }
  }

  /** Reads one connection to its end. @param {AbortSignal} stopped */
  async #read(stopped) {
    const silent = new AbortController();
    let timer = setTimeout(() => silent.abort(), SILENCE_MS);
    try {
      const response = await this.#admin.open("stream", AbortSignal.any([stopped, silent.signal]));
      if (!response.body) return;
      for await (const event of readEvents(response.body)) {
        clearTimeout(timer);
        timer = setTimeout(() => silent.abort(), SILENCE_MS);
        this.#take(event);
      }
    } finally {
      clearTimeout(timer);
      silent.abort();
    }
  }

  /** @param {import("../sse.js").ServerEvent} event */
  #take(event) {
    if (event.event === "workers") this.#listener.onWorkers();
    if (event.event !== "point") return;
    this.#listener.onState("live");
    this.#listener.onPoint(JSON.parse(event.data));
  }

  /** @param {number} ms @returns {Promise<void>} which ends early when the network is back */
  #pause(ms) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, ms);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}
