// @ts-check
/** The console of who has signed in: the stream, and one view at a time. */

import { AlertsView } from "./alerts_view.js";
import { AuditView } from "./audit_view.js";
import { CanaryView } from "./canary_view.js";
import { fill } from "./html.js";
import { text } from "./i18n.js";
import { KeysView } from "./keys_view.js";
import { Live } from "./live.js";
import { LiveView } from "./live_view.js";
import { Points } from "./points.js";
import { currentPlace } from "./router.js";
import { Shell } from "./shell.js";
import { TasksView } from "./tasks_view.js";
import { WorkersView } from "./workers_view.js";

/** @typedef {import("./admin.js").Admin} Admin */
/** @typedef {import("./context.js").Context} Context */
/** @typedef {import("./context.js").View} View */
/** @typedef {import("./types.js").Point} Point */

/** Points come each second; data are called old when one has not come for so long. */
const STALE_S = 3;
const BADGES_MS = 15_000;
/** @type {Record<string, new (context: Context) => View>} */
const VIEWS = { live: LiveView, workers: WorkersView, tasks: TasksView, alerts: AlertsView, keys: KeysView, canary: CanaryView, audit: AuditView };

/** @typedef {{onLanguage: (language: "en" | "zh") => void, onLeave: () => void}} Choices */

export class Desk {
  #admin;
  #app;
  #choices;
  #points = new Points();
  #live;
  /** @type {Record<string, string>} */
  #kept = {};
  /** @type {View | null} */
  #view = null;
  /** @type {Shell | null} */
  #shell = null;
  /** @type {Point | null} */
  #newest = null;
  /** When the newest point came, and how far the server's clock is ahead of this one. */
  #heardMs = 0;
  #aheadS = 0;
  #wasCut = false;
  /** @type {import("./live.js").StreamState} */
  #stream = "connecting";

  /**
   * @param {Admin} admin of the session
   * @param {HTMLElement} app what it is shown in
   * @param {Choices} choices what a person may do in every view
   */
  constructor(admin, app, choices) {
    this.#admin = admin;
    this.#app = app;
    this.#choices = choices;
    this.#live = new Live(admin, {
      onPoint: (point) => this.#take(point),
      onWorkers: () => this.#view?.onWorkers?.(),
      onState: (state) => this.#follow(state),
    });
    addEventListener("hashchange", () => this.#goTo(true));
    document.addEventListener("visibilitychange", () => document.hidden || this.#tick());
    setInterval(() => this.#tick(), 1_000);
    setInterval(() => void this.#badges(), BADGES_MS);
  }

  /** Shows everything, in the language of now. */
  open() {
    this.#shell = new Shell(this.#choices);
    fill(this.#app, this.#shell.element);
    this.#goTo(false);
    this.#live.start();
    void this.#badges();
    this.#tick();
  }

  /** Ends everything that belongs to a session. */
  leave() {
    this.#live.stop();
    this.#view?.hide();
    this.#view = null;
    this.#shell = null;
    this.#newest = null;
    this.#points = new Points();
  }

  /** @param {boolean} moved */
  #goTo(moved) {
    if (!this.#shell) return;
    this.#view?.hide();
    const place = currentPlace();
    this.#view = new VIEWS[place]({ admin: this.#admin, points: this.#points, nowS: () => this.#nowS(), kept: this.#kept });
    this.#shell.show(place, this.#view.element, moved);
    void this.#view.show();
  }

  /** @param {Point} point */
  #take(point) {
    this.#newest = point;
    this.#heardMs = Date.now();
    this.#aheadS = point.at - this.#heardMs / 1_000;
    this.#points.add(point);
    this.#tick();
  }

  /** @param {import("./live.js").StreamState} state */
  #follow(state) {
    this.#stream = state;
    if (state === "cut") this.#wasCut = true;
    if (state === "live" && this.#wasCut) {
      this.#wasCut = false;
      void this.#view?.load?.(); // what was missed meanwhile
    }
  }

  #tick() {
    const shell = this.#shell;
    if (!shell) return;
    const ageS = this.#newest ? (Date.now() - this.#heardMs) / 1_000 : null;
    const stale = ageS === null || ageS > STALE_S;
    shell.tellStream(this.#stream, ageS, stale && ageS !== null);
    if (this.#newest && !stale) shell.light.show(this.#newest.light);
    else shell.light.lost(ageS);
    this.#view?.tick?.(this.#nowS());
  }

  /** @returns {number} the server's time, as far as it is known */
  #nowS() {
    return Date.now() / 1_000 + this.#aheadS;
  }

  async #badges() {
    if (!this.#shell || document.hidden) return;
    try {
      const board = /** @type {import("./types.js").AlertBoard} */ (await this.#admin.get("alerts"));
      const firing = board.data.filter((one) => one.state === "firing" && !one.silenced).length;
      this.#shell?.badge("alerts", firing, text("alertsFiring", { count: firing }));
    } catch (error) {
      console.warn("no count of alerts:", error); // the stream says that the server is away
    }
  }
}
