// @ts-check
/** The answer's panel: a small state machine and the figures beside it. */

import { AnswerText } from "./answer_text.js";
import { ApiError } from "./api.js";
import { byId } from "./dom.js";
import { errorWords, text } from "./i18n.js";

/** @typedef {"empty" | "waiting" | "streaming" | "done" | "cut" | "stopped" | "failed"} State */
/** @typedef {{promptTokens: number | null, answerTokens: number}} Usage */
/** Whose answer it is, where another question was equal. @typedef {"cached" | "joined" | null} Reuse */
/**
 * What is kept of an answer. Times in milliseconds since the epoch, 0 where nothing came.
 * @typedef {{state: State, text: string, askedAt: number, firstAt: number, endedAt: number,
 *   usage: Usage | null, reuse: Reuse, requestId: string,
 *   error: {code: string, message: string, mend: string, retryAfter: string} | null}} Outcome
 */

const TICK_MS = 100;

export class Answer {
  #panel = byId("answer", HTMLElement);
  #phase = byId("phase", HTMLSpanElement);
  #words;
  /** @type {Outcome} */
  #now = blank();
  #timer = 0;
  /** @type {string | null} */
  #wanted = null;
  #cutShort = false;
  /** @type {{ahead: number, etaSeconds: number | null} | null} */
  #place = null;

  /** @param {(boxes: import("./boxes.js").Box[]) => void} onBoxes told of the places that an answer names */
  constructor(onBoxes) {
    this.#words = new AnswerText(onBoxes);
  }

  /** @returns {Outcome} what there is of the answer now */
  get outcome() {
    return { ...this.#now, text: this.#words.whole };
  }

  /** @returns {string} the answer itself, without thinking */
  get said() {
    return this.#words.said;
  }

  /**
   * @param {string} question
   * @param {string | null} wanted the right answer, where a sample's own question is asked
   * @param {Partial<Outcome>} [before] what came before a reload
   */
  begin(question, wanted, before = {}) {
    this.#now = { ...blank(), askedAt: Date.now(), ...before };
    this.#wanted = wanted;
    this.#place = null;
    this.#cutShort = false;
    this.#ask(question);
    this.#words.begin(this.#now.text);
    clearInterval(this.#timer);
    this.#timer = setInterval(() => this.render(), TICK_MS);
    this.#enter(this.#now.text ? "streaming" : "waiting");
    this.#panel.scrollIntoView({ block: "nearest" }); // on a phone it is below the fold
  }

  /**
   * Shows an answer that was given before.
   * @param {string} question
   * @param {Outcome} outcome
   */
  show(question, outcome) {
    clearInterval(this.#timer);
    this.#now = { ...outcome };
    this.#wanted = null;
    this.#ask(question);
    this.#words.begin(outcome.text);
    this.#words.end(false);
    this.#enter(outcome.state);
  }

  /** @param {import("./task.js").AnswerEvent} event */
  take(event) {
    if (event.kind === "open") this.#now.requestId = event.requestId;
    else if (event.kind === "text") this.#append(event.text);
    else if (event.kind === "usage") this.#now.usage = event;
    else if (event.kind === "finish") this.#conclude(event.reason, event.reuse);
    else if (event.kind === "restart") this.#startOver();
    else if (event.kind !== "read") this.#stand(event.kind === "place" ? event : null);
  }

  /** The answer is whole. */
  finish() {
    this.#end(this.#cutShort ? "cut" : "done");
  }

  /** The person stopped it. */
  stop() {
    this.#end("stopped");
  }

  /** @param {unknown} error */
  fail(error) {
    const known = error instanceof ApiError ? error : null;
    this.#now.error = {
      code: known?.code ?? "page_error",
      message: error instanceof Error ? error.message : String(error),
      mend: known?.mend ?? "",
      retryAfter: known?.retryAfter ?? "",
    };
    if (known?.requestId) this.#now.requestId = known.requestId;
    this.#end("failed");
  }

  /** Writes the state in the language of now. */
  render() {
    const { state } = this.#now;
    this.#panel.dataset.state = state;
    this.#phase.textContent = state === "empty" ? "" : text(state, { seconds: this.#secondsTo(Date.now(), 1) });
    if (state === "waiting") this.#phase.setAttribute("aria-live", "off");
    else this.#phase.removeAttribute("aria-live");
    this.#words.render();
    this.#renderPlace();
    this.#renderFacts();
    this.#renderExpected();
    this.#renderError();
    byId("actions", HTMLDivElement).hidden = state === "empty" || !this.#over;
  }

  get #over() {
    return this.#now.state !== "waiting" && this.#now.state !== "streaming";
  }

  /** @param {string} question */
  #ask(question) {
    byId("asked", HTMLParagraphElement).textContent = question;
  }

  /** @param {string} piece */
  #append(piece) {
    this.#now.firstAt ||= Date.now();
    this.#words.append(piece);
    if (this.#now.state !== "streaming") this.#enter("streaming");
  }

  /** A worker died: what was written is void, and the answer starts over. */
  #startOver() {
    this.#words.begin("");
    this.#now.firstAt = 0;
    this.#enter("waiting");
  }

  /**
   * @param {string} reason
   * @param {Reuse} reuse
   */
  #conclude(reason, reuse) {
    this.#cutShort = reason === "length";
    this.#now.reuse = reuse;
  }

  /** @param {{ahead: number, etaSeconds: number | null} | null} place in the queue; null: out of it */
  #stand(place) {
    this.#place = place;
    this.render();
  }

  #renderPlace() {
    const line = byId("place", HTMLParagraphElement);
    const place = this.#now.state === "waiting" ? this.#place : null;
    line.hidden = place === null;
    if (!place) return;
    const where = place.ahead === 0 ? text("next") : text("ahead", { count: place.ahead });
    const seconds = place.etaSeconds === null ? null : Math.max(1, Math.round(place.etaSeconds));
    line.textContent = seconds === null ? where : `${where} · ${text("expectedWait", { seconds })}`;
  }

  /** @param {State} state a last one */
  #end(state) {
    clearInterval(this.#timer);
    this.#now.endedAt = Date.now();
    this.#words.end(state !== "failed");
    this.#enter(state);
  }

  /** @param {State} state */
  #enter(state) {
    this.#now.state = state;
    this.render();
  }

  #renderFacts() {
    const { state, firstAt, endedAt, usage, reuse, requestId } = this.#now;
    const facts = byId("facts", HTMLDListElement);
    facts.hidden = state === "empty" || state === "waiting";
    facts.dataset.whole = String(this.#over && !firstAt); // it came at once, as a review does
    facts.dataset.bare = String(this.#over && !firstAt && !usage);
    const tell = (/** @type {string} */ id, /** @type {string} */ words) => (byId(id, HTMLElement).textContent = words);
    tell("fact-first", firstAt ? text("seconds", { seconds: this.#secondsTo(firstAt, 2) }) : "–");
    tell("fact-total", text("seconds", { seconds: this.#secondsTo(this.#over ? endedAt : Date.now(), 2) }));
    tell("fact-speed", speedOf(this.#now));
    tell("fact-tokens", usage ? tokensOf(usage) : "–");
    tell("fact-source", reuse ? text(reuse) : "");
    tell("fact-request", requestId);
    byId("source", HTMLDivElement).hidden = reuse === null;
    byId("request", HTMLDivElement).hidden = requestId === "";
  }

  #renderExpected() {
    const known = this.#wanted !== null && this.#now.state === "done";
    byId("expected", HTMLDivElement).hidden = !known;
    const value = byId("fact-expected", HTMLElement);
    value.textContent = this.#wanted;
    value.dataset.right = String(known && this.#words.said === this.#wanted);
  }

  #renderError() {
    const { state, error } = this.#now;
    const box = byId("error", HTMLDivElement);
    box.hidden = state !== "failed" || !error;
    if (state !== "failed" || !error) return;
    const words = errorWords(error.code);
    const mend = words?.mend ?? error.mend;
    byId("error-title", HTMLElement).textContent = words?.title ?? text("unknownError");
    byId("error-code", HTMLElement).textContent = error.code;
    byId("error-message", HTMLParagraphElement).textContent = error.message;
    byId("error-mend", HTMLParagraphElement).textContent = error.retryAfter
      ? `${mend} ${text("retryAfter", { seconds: error.retryAfter })}`
      : mend;
  }

  /**
   * @param {number} moment
   * @param {number} digits
   */
  #secondsTo(moment, digits) {
    return (Math.max(0, moment - this.#now.askedAt) / 1000).toFixed(digits);
  }
}

/** @returns {Outcome} */
function blank() {
  const times = { askedAt: 0, firstAt: 0, endedAt: 0 };
  return { state: "empty", text: "", ...times, usage: null, reuse: null, requestId: "", error: null };
}

/** @param {Usage} usage */
function tokensOf({ answerTokens: answer, promptTokens: prompt }) {
  return prompt === null ? String(answer) : text("tokenCount", { answer, prompt });
}

/**
 * @param {Outcome} outcome
 * @returns {string} tokens a second after the first one, where the model wrote them for this question
 */
function speedOf({ firstAt, endedAt, usage, reuse }) {
  const seconds = (endedAt - firstAt) / 1000;
  if (!usage || reuse || !firstAt || usage.answerTokens < 2 || seconds <= 0) return "–";
  const speed = (usage.answerTokens - 1) / seconds;
  return text("perSecond", { tokens: speed < 10 ? speed.toFixed(1) : Math.round(speed) });
}
