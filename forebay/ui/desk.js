// @ts-check
/** The desk: pictures, a question, an answer that streams, and what is done with it. */

import { Answer } from "./answer.js";
import { fetchSample } from "./api.js";
import { Asking } from "./asking.js";
import { Camera } from "./camera.js";
import { asCurl, asPython } from "./code.js";
import { byId, flash } from "./dom.js";
import { Entries } from "./entries.js";
import { asJson, asMarkdown, saveAs } from "./export.js";
import { History } from "./history.js";
import { onLanguage, text } from "./i18n.js";
import { currentKey, followKeyDialog } from "./key.js";
import { Review } from "./review.js";
import { Samples } from "./samples.js";
import { Status } from "./status.js";
import { Tray } from "./tray.js";
import { Zoom } from "./zoom.js";

/** @typedef {import("./api.js").Sample} Sample */
/** @typedef {import("./entries.js").Entry} Entry */

export class Desk {
  tray = new Tray(() => this.#chooseSample(null));
  #question;
  #answer = new Answer((boxes) => {
    this.tray.draw(boxes);
    this.#showBoxes();
  });
  #entries = new Entries();
  #asking = new Asking(this.#answer, this.#entries, () => this.#refresh());
  #review = new Review((entry) => void this.#asking.keep(entry));
  #samples = new Samples((sample) => void this.#takeSample(sample));
  #history = new History(this.#entries, (entry) => this.#look(entry));
  #camera = new Camera((file) => this.tray.add([file]));
  #zoom = new Zoom();
  #status = new Status((vision) => {
    this.tray.see(vision);
    byId("by-url", HTMLButtonElement).hidden = !vision.fetches_urls;
  });
  /** @type {Sample | null} */
  #chosen = null;

  /** @param {import("./question.js").Question} question */
  constructor(question) {
    this.#question = question;
    followKeyDialog();
    this.#followActions();
    onLanguage(() => this.#speak());
    void this.#asking.resume((entry, words) => (entry ? this.#layOut(entry) : question.write(words)));
    void this.#status.follow();
    this.#samples.load().catch((error) => console.warn("no samples:", error));
  }

  /** Asks what is written. `fresh`: an equal question's answer will not do. @param {{fresh?: boolean}} [how] */
  async ask({ fresh = false } = {}) {
    const { words, mode } = this.#question;
    if (words === "" || this.#asking.running) return;
    const wanted = mode === "ask" && this.#chosen?.question === words ? this.#chosen.answer : null;
    await this.#asking.ask({ kind: mode, question: words, wanted, fresh }, async () => ({
      model: await this.#status.model(),
      pictures: await this.tray.toSend(),
    }));
  }

  /** Ends the question that runs. */
  stop() {
    this.#asking.stop();
  }

  /** Asks the question that is on show again. */
  async retry() {
    const entry = this.#asking.entry;
    if (this.#asking.running) return;
    const { words, mode } = this.#question;
    if (entry && (entry.question !== words || entry.kind !== mode)) this.#layOut(entry);
    await this.ask({ fresh: true });
  }

  /** Takes the question back to change it; one that runs is stopped. */
  edit() {
    const entry = this.#asking.entry;
    if (this.#asking.running) this.#asking.stop();
    if (entry && entry.question !== this.#question.words) this.#layOut(entry);
    this.#question.select();
  }

  /** @param {"approve" | "reject"} decision */
  decide(decision) {
    this.#review.decide(decision);
  }

  openCamera() {
    this.#camera.open();
  }

  openHistory() {
    void this.#history.open();
  }

  openZoom() {
    const shown = this.tray.onShow;
    if (shown) this.#zoom.open(shown, this.tray.boxes);
  }

  /** @param {Sample | null} sample */
  #chooseSample(sample) {
    this.#chosen = sample;
    this.#samples.mark(sample);
    if (!sample) this.#question.suggest("");
  }

  /** @param {Sample} sample */
  async #takeSample(sample) {
    try {
      this.#chooseSample(sample);
      const file = await fetchSample(sample);
      if (this.#chosen !== sample) return; // another was clicked meanwhile
      this.tray.replace([file]);
      this.#question.suggest(sample.question);
    } catch (error) {
      this.#answer.begin(sample.question, null);
      this.#answer.fail(error);
    }
  }

  /** A question began or ended. */
  #refresh() {
    const { running, entry } = this.#asking;
    this.#question.show(running);
    if (running) {
      this.tray.draw([]);
      this.#showBoxes();
    }
    this.#review.show(running ? null : entry);
  }

  #showBoxes() {
    const line = byId("found", HTMLParagraphElement);
    const count = this.tray.boxes.length;
    line.hidden = count === 0 || this.tray.onShow === null;
    line.textContent = text("found", { count });
  }

  /** Puts an entry's words and pictures back onto the desk. @param {Entry} entry */
  #layOut(entry) {
    this.#chooseSample(null);
    this.#question.choose(entry.kind);
    this.#question.write(entry.question);
    this.tray.restore(entry.pictures);
  }

  /** @param {Entry} entry */
  #look(entry) {
    this.#asking.leave();
    this.#layOut(entry);
    this.#asking.look(entry);
    this.#refresh();
  }

  /** @returns {import("./code.js").Call} the question that is on show */
  #call() {
    const entry = this.#asking.entry;
    return {
      base: new URL("v1", document.baseURI).href,
      model: entry?.model ?? "",
      question: entry?.question ?? this.#question.words,
      pictures: entry?.pictures ?? [],
      kind: entry?.kind ?? this.#question.mode,
      keyed: currentKey() !== "",
    };
  }

  #followActions() {
    onClick("stop", () => this.stop());
    onClick("retry", () => void this.retry());
    onClick("edit", () => this.edit());
    onClick("zoom", () => this.openZoom());
    byId("preview-image", HTMLImageElement).addEventListener("click", () => this.openZoom());
    followCopy("copy", () => this.#answer.outcome.requestId);
    followCopy("copy-answer", () => (this.#asking.entry?.opinion ? asJson([this.#asking.entry]) : this.#answer.said));
    followCopy("copy-curl", () => asCurl(this.#call()));
    followCopy("copy-python", () => asPython(this.#call()));
    onClick("save-json", () => this.#save(asJson, "forebay.json"));
    onClick("save-markdown", () => this.#save(asMarkdown, "forebay.md"));
    onClick("code-close", () => byId("code-dialog", HTMLDialogElement).close());
  }

  /**
   * @param {(entries: Entry[]) => string} form
   * @param {string} name
   */
  #save(form, name) {
    const entry = this.#asking.entry;
    if (entry) saveAs(form([{ ...entry, outcome: this.#answer.outcome }]), name);
  }

  /** Writes what scripts wrote in the language of now. */
  #speak() {
    this.#samples.show();
    this.tray.render();
    this.#answer.render();
    this.#showBoxes();
    this.#review.render();
    this.#status.render();
  }
}

/**
 * @param {string} id of the button
 * @param {() => void} deed
 */
function onClick(id, deed) {
  byId(id, HTMLButtonElement).addEventListener("click", deed);
}

/**
 * @param {string} id of the button
 * @param {() => string} words what it copies
 */
function followCopy(id, words) {
  const button = byId(id, HTMLButtonElement);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(words());
      flash(button, text("copied"));
    } catch {
      showCode(words()); // no clipboard without https: it is shown to be taken by hand
    }
  });
}

/** @param {string} words */
function showCode(words) {
  const code = byId("code-text", HTMLTextAreaElement);
  code.value = words;
  byId("code-dialog", HTMLDialogElement).showModal();
  code.select();
}
