// @ts-check
/** One task in full: what is known of it, and its way drawn in time. */

import { NOTHING, clock, moment, seconds, withUnit } from "./format.js";
import { fill, h } from "./html.js";
import { text, word } from "./i18n.js";
import { errorBox } from "./notes.js";
import { canCancel, cancelTask, forgetTask, replayTask, TONES } from "./task_deeds.js";
import { drawTimeline } from "./timeline.js";

/** @typedef {import("./admin.js").Admin} Admin */
/** @typedef {import("./types.js").TaskStory} TaskStory */

const LOOK_MS = 1_000;

export class TaskPane {
  #admin;
  #changed;
  #body = h("div", { class: "pane-body" });
  #id = "";
  #timer = 0;
  #close;
  /** @type {HTMLElement | null} who has the focus back when the pane is closed */
  #opener = null;
  /** What is shown, so that nothing is drawn anew for nothing. */
  #shown = "";

  /**
   * @param {Admin} admin
   * @param {() => void} changed called after a deed
   */
  constructor(admin, changed) {
    this.#admin = admin;
    this.#changed = changed;
    const close = h("button", { type: "button", class: "button quiet pane-close" }, text("close"));
    close.addEventListener("click", () => this.close());
    this.#close = close;
    this.element = h("dialog", { class: "pane", id: "task-pane", "aria-label": text("task") }, close, this.#body);
    this.element.addEventListener("close", () => {
      clearTimeout(this.#timer);
      removeEventListener("keydown", this.#onKey);
      if (this.#opener?.isConnected) this.#opener.focus();
    });
  }

  /** @param {string} id */
  async open(id) {
    this.#id = id;
    this.#shown = "";
    fill(this.#body);
    // beside the list, not over it: another task may be chosen while it is open
    if (!this.element.open) {
      this.#opener = document.activeElement instanceof HTMLElement ? document.activeElement : null;
      this.element.show();
      addEventListener("keydown", this.#onKey);
    }
    await this.#look(id);
  }

  close() {
    if (this.element.open) this.element.close();
  }

  /** Escape closes it, unless it closes a dialog above. */
  #onKey = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Escape" && !document.querySelector("dialog:modal")) this.close();
  };

  /** @param {string} id */
  async #look(id) {
    clearTimeout(this.#timer);
    let ended = false;
    try {
      const task = /** @type {TaskStory} */ (await this.#admin.get(`tasks/${encodeURIComponent(id)}`));
      if (id !== this.#id || !this.element.open) return;
      ended = !canCancel(task);
      if (JSON.stringify(task) !== this.#shown || !ended) this.#show(task);
    } catch (error) {
      if (id === this.#id) fill(this.#body, errorBox(error));
    }
    // an end is looked at more rarely: only a dead letter can come back
    if (id === this.#id && this.element.open) this.#timer = setTimeout(() => void this.#look(id), ended ? 4 * LOOK_MS : LOOK_MS);
  }

  /** @param {TaskStory} task */
  #show(task) {
    this.#shown = JSON.stringify(task);
    const focused = document.activeElement;
    const held = focused instanceof HTMLElement && this.#body.contains(focused) ? focused.dataset.deed : undefined;
    fill(
      this.#body,
      h("div", { class: "pane-head" }, h("h2", {}, text("task")), h("span", { class: "pill", "data-tone": TONES[task.state] ?? "" }, word("taskStates", task.state))),
      h("p", { class: "code task-id" }, task.id),
      task.error && h("p", { class: "error-box" }, h("code", {}, task.error.code), " ", task.error.message),
      drawTimeline(task.timeline, Date.now() / 1000),
      h("dl", { class: "facts" }, ...factsOf(task).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
      h("div", { class: "pane-deeds" }, ...this.#deeds(task)),
    );
    if (held === undefined) return;
    const again = this.#body.querySelector(`[data-deed="${held}"]`);
    (again instanceof HTMLElement ? again : this.#close).focus(); // what had the focus is made anew
  }

  /** @param {TaskStory} task */
  #deeds(task) {
    const { id } = task;
    if (canCancel(task)) return [this.#button("cancelTask", "harm", (button) => cancelTask(this.#admin, id, button))];
    if (task.state !== "dead") return [];
    return [
      this.#button("replay", "primary", (button) => replayTask(this.#admin, id, button)),
      this.#button("forget", "harm", (button) => forgetTask(this.#admin, id, button)),
    ];
  }

  /**
   * @param {import("./i18n.js").TextKey} name
   * @param {string} look
   * @param {(button: HTMLButtonElement) => Promise<void>} act
   */
  #button(name, look, act) {
    const button = h("button", { type: "button", class: `button ${look}`, "data-deed": name }, text(name));
    button.addEventListener("click", () => {
      void act(button).then(() => {
        this.#changed();
        void this.#look(this.#id);
      });
    });
    return button;
  }
}

/** @param {TaskStory} task @returns {[string, string][]} */
function factsOf(task) {
  const usage = task.usage ?? {};
  return [
    [text("tenant"), task.tenant],
    [text("model"), task.model ?? NOTHING],
    [text("priority"), task.priority],
    [text("made"), moment(task.created_at)],
    [text("ended"), task.finished_at === null ? NOTHING : clock(task.finished_at)],
    [text("place"), withUnit(task.position, "count")],
    [text("eta"), task.eta_seconds === null ? NOTHING : seconds(task.eta_seconds)],
    [text("deliveries"), String(task.deliveries)],
    [text("worker"), task.worker ?? NOTHING],
    [text("cost"), withUnit(task.cost_tokens, "count")],
    [text("tokens"), task.usage ? text("tokenCount", { prompt: usage.prompt_tokens ?? 0, answer: usage.completion_tokens ?? 0 }) : NOTHING],
    [text("reuse"), task.reuse ? word("reuses", task.reuse) : NOTHING],
  ];
}
