// @ts-check
/** One question at a time: sent, followed, stopped, and gone on with after a reload. */

import { review, submitTask } from "./api.js";
import { recallHere, rememberHere } from "./memory.js";
import { dropTask, followTask } from "./task.js";

/** @typedef {import("./answer.js").Outcome} Outcome */
/** @typedef {import("./entries.js").Entry} Entry */
/** @typedef {import("./tray.js").Sent} Sent */
/**
 * `wanted`: the right answer, where it is known. `fresh`: no equal question's answer will do.
 * @typedef {{kind: "ask" | "review", question: string, wanted: string | null, fresh: boolean}} Wish
 */
/**
 * What a reload needs to go on: the task, how far its stream was read, and what had come by then.
 * @typedef {{entryId: string, taskId: string, place: string, question: string, outcome: Outcome}} Open
 */

const OPEN = "open";
const SAVE_MS = 250;
/** Why a run is given up though its question goes on: another entry is looked at. */
const LEFT = "left";

export class Asking {
  #answer;
  #entries;
  #onChange;
  /** @type {AbortController | null} */
  #control = null;
  /** @type {Entry | null} */
  #entry = null;
  /** How far the stream was read, and the text by then. */
  #read = { place: "", text: "" };
  #savedAt = 0;
  #leaving = false;

  /**
   * @param {import("./answer.js").Answer} answer
   * @param {import("./entries.js").Entries} entries
   * @param {() => void} onChange told when a question begins or ends
   */
  constructor(answer, entries, onChange) {
    this.#answer = answer;
    this.#entries = entries;
    this.#onChange = onChange;
    // a browser fails what is under way when the page is left: that is no end of the question
    addEventListener("pagehide", () => {
      this.#leaving = true;
      if (this.#control) this.#save();
    });
    addEventListener("pageshow", () => (this.#leaving = false));
  }

  get running() {
    return this.#control !== null;
  }

  /** @returns {Entry | null} the question that is on show */
  get entry() {
    return this.#entry;
  }

  /** Ends the question that runs. */
  stop() {
    this.#control?.abort();
  }

  /** Looks away from the question that runs, which goes on; history has it. */
  leave() {
    this.#control?.abort(LEFT);
    this.#control = null;
    rememberHere(OPEN, null);
    this.#onChange();
  }

  /** Shows an entry of the past. @param {Entry} entry */
  look(entry) {
    this.#entry = entry;
    if (entry.open) void this.#goOn(entry, { text: "", askedAt: entry.outcome.askedAt }, "");
    else this.#answer.show(entry.question, entry.outcome);
  }

  /**
   * @param {Wish} wish
   * @param {() => Promise<{model: string, pictures: Sent[]}>} gather what is sent besides
   */
  async ask(wish, gather) {
    if (this.#control) return;
    this.#entry = null;
    await this.#run(wish.question, wish.wanted, {}, async (signal) => {
      const { model, pictures } = await gather();
      signal.throwIfAborted();
      const entry = newEntry(wish, model, pictures, this.#answer.outcome);
      this.#entry = entry;
      if (wish.kind === "review") await this.#review(entry, signal);
      else await this.#submit(entry, wish.fresh, signal);
    });
  }

  /**
   * Goes on with the question that was open when this tab's page was left.
   * @param {(entry: Entry | null, question: string) => void} restore puts its pictures and words back
   */
  async resume(restore) {
    /** @type {Open | null} */
    const open = JSON.parse(recallHere(OPEN) ?? "null");
    if (!open) return;
    const kept = await this.#entries.get(open.entryId);
    const entry = kept ?? { ...newEntry({ kind: "ask", question: open.question }, "", [], open.outcome), id: open.entryId };
    entry.taskId = open.taskId;
    this.#entry = entry;
    restore(kept, open.question);
    const { text, askedAt, firstAt, requestId } = open.outcome;
    await this.#goOn(entry, { text, askedAt, firstAt, requestId }, open.place);
  }

  /** @param {Entry} entry */
  async keep(entry) {
    await this.#entries.put(entry);
  }

  /**
   * @param {Entry} entry
   * @param {Partial<Outcome>} before
   * @param {string} place
   */
  async #goOn(entry, before, place) {
    const known = { requestId: entry.outcome.requestId, ...before };
    await this.#run(entry.question, null, known, (signal) => this.#follow(entry, place, signal));
  }

  /**
   * @param {Entry} entry
   * @param {boolean} fresh
   * @param {AbortSignal} signal
   */
  async #submit(entry, fresh, signal) {
    const { model, question, pictures } = entry;
    const task = await submitTask({ model, question, pictures, fresh, signal });
    this.#answer.take({ kind: "open", requestId: task.requestId });
    entry.taskId = task.taskId;
    entry.open = true;
    entry.outcome = this.#answer.outcome;
    this.#mark("");
    this.#save();
    void this.#entries.put(entry);
    await this.#follow(entry, "", signal);
  }

  /**
   * @param {Entry} entry
   * @param {string} place
   * @param {AbortSignal} signal
   */
  async #follow(entry, place, signal) {
    this.#mark(place);
    const { requestId } = this.#answer.outcome;
    for await (const event of followTask(entry.taskId, requestId, signal, place)) {
      this.#answer.take(event);
      if (event.kind !== "read") continue;
      this.#mark(event.place);
      if (Date.now() - this.#savedAt > SAVE_MS) this.#save();
    }
  }

  /**
   * @param {Entry} entry
   * @param {AbortSignal} signal
   */
  async #review(entry, signal) {
    const { model, question: prompt, pictures } = entry;
    const opinion = await review({ model, prompt, picture: pictures[0] ?? null, signal });
    entry.opinion = opinion;
    this.#answer.take({ kind: "open", requestId: opinion.requestId });
    if (opinion.tokens !== null) this.#answer.take({ kind: "usage", promptTokens: null, answerTokens: opinion.tokens });
  }

  /**
   * @param {string} question
   * @param {string | null} wanted
   * @param {Partial<Outcome>} before
   * @param {(signal: AbortSignal) => Promise<void>} act
   */
  async #run(question, wanted, before, act) {
    const control = new AbortController();
    this.#control = control;
    this.#answer.begin(question, wanted, before);
    this.#onChange();
    try {
      await act(control.signal);
      this.#answer.finish();
    } catch (error) {
      if (control.signal.reason === LEFT) return;
      if (control.signal.aborted) await this.#giveUp();
      else this.#answer.fail(error);
    } finally {
      if (this.#control === control) this.#end();
    }
  }

  async #giveUp() {
    this.#answer.stop();
    if (this.#entry?.open) await dropTask(this.#entry.taskId);
  }

  #end() {
    this.#control = null;
    if (!this.#leaving) {
      rememberHere(OPEN, null);
      if (this.#entry) {
        this.#entry.open = false;
        this.#entry.outcome = this.#answer.outcome;
        void this.#entries.put(this.#entry);
      }
    }
    this.#onChange();
  }

  /** @param {string} place that the stream was read to */
  #mark(place) {
    this.#read = { place, text: this.#answer.outcome.text };
  }

  /** Writes down how far the answer has come, for a reload. */
  #save() {
    const entry = this.#entry;
    if (!entry?.taskId) return;
    this.#savedAt = Date.now();
    /** @type {Open} */
    const open = {
      entryId: entry.id,
      taskId: entry.taskId,
      place: this.#read.place,
      question: entry.question,
      outcome: { ...this.#answer.outcome, text: this.#read.text },
    };
    rememberHere(OPEN, JSON.stringify(open));
  }
}

/**
 * @param {Pick<Wish, "kind" | "question">} wish
 * @param {string} model
 * @param {Sent[]} pictures
 * @param {Outcome} outcome
 * @returns {Entry}
 */
function newEntry({ kind, question }, model, pictures, outcome) {
  const id = `${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 10)}`;
  return { id, kind, model, question, pictures, open: false, taskId: "", outcome, opinion: null, verdict: null };
}
