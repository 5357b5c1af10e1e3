// @ts-check
/** The review of a picture: what the model says for or against it, and a person's decision. */

import { byId, listItem } from "./dom.js";
import { text } from "./i18n.js";

/** @typedef {import("./entries.js").Entry} Entry */

const RESULTS = /** @type {const} */ ({ approve: "approve", reject: "reject", review: "review" });

export class Review {
  #box = byId("verdict", HTMLElement);
  #form = byId("verdict-form", HTMLDivElement);
  #note = byId("verdict-note", HTMLInputElement);
  #saved = byId("verdict-saved", HTMLParagraphElement);
  /** @type {Entry | null} */
  #entry = null;
  #keep;

  /** @param {(entry: Entry) => void} keep called with an entry that was decided upon */
  constructor(keep) {
    this.#keep = keep;
    byId("approve", HTMLButtonElement).addEventListener("click", () => this.#decide("approve"));
    byId("reject", HTMLButtonElement).addEventListener("click", () => this.#decide("reject"));
    this.#note.addEventListener("keydown", (event) => {
      if (event.key === "Enter") event.preventDefault(); // which of the two it is must be said
    });
  }

  /** @returns {boolean} whether there is an opinion to decide upon */
  get waits() {
    return Boolean(this.#entry?.opinion);
  }

  /** @param {Entry | null} entry null or one without an opinion: nothing is shown */
  show(entry) {
    this.#entry = entry?.opinion ? entry : null;
    this.#note.value = entry?.verdict?.note ?? "";
    this.render();
  }

  /** @param {"approve" | "reject"} decision */
  decide(decision) {
    if (this.#entry) this.#decide(decision);
  }

  /** Writes everything in the language of now. */
  render() {
    const opinion = this.#entry?.opinion;
    this.#box.hidden = !opinion;
    if (!opinion) return;
    const result = byId("opinion-result", HTMLElement);
    const known = Object.hasOwn(RESULTS, opinion.result) ? RESULTS[/** @type {keyof typeof RESULTS} */ (opinion.result)] : null;
    result.textContent = known ? text(known) : opinion.result;
    result.dataset.result = opinion.result;
    this.#renderSureness(opinion.confidence);
    const reasons = byId("opinion-reasons", HTMLUListElement);
    reasons.hidden = opinion.reasons.length === 0;
    reasons.replaceChildren(...opinion.reasons.map((reason) => listItem(document.createTextNode(reason))));
    this.#renderVerdict();
  }

  /** @param {number | null} confidence */
  #renderSureness(confidence) {
    const meter = byId("opinion-meter", HTMLMeterElement);
    const line = byId("opinion-confidence", HTMLElement);
    meter.hidden = confidence === null;
    meter.value = confidence ?? 0;
    line.textContent = confidence === null ? "" : text("confidence", { percent: (100 * confidence).toFixed(1) });
  }

  #renderVerdict() {
    const verdict = this.#entry?.verdict;
    for (const button of this.#form.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button.id === verdict?.decision));
    }
    this.#saved.textContent = verdict ? text(verdict.decision === "approve" ? "approved" : "rejected") : "";
  }

  /** @param {"approve" | "reject"} decision */
  #decide(decision) {
    if (!this.#entry) return;
    this.#entry.verdict = { decision, note: this.#note.value.trim(), at: Date.now() };
    this.#keep(this.#entry);
    this.render();
  }
}
