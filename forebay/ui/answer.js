// @ts-check
/** The answer's panel: a small state machine and the figures beside it. */

import { ApiError } from "./api.js";
import { byId } from "./dom.js";
import { errorWords, text } from "./i18n.js";

/** @typedef {"empty" | "waiting" | "streaming" | "done" | "cut" | "stopped" | "failed"} State */

const LONG_ANSWER = 120;
const TICK_MS = 100;

export class Answer {
  #panel = byId("answer", HTMLElement);
  #phase = byId("phase", HTMLSpanElement);
  #text = byId("answer-text", HTMLParagraphElement);
  #facts = byId("facts", HTMLDListElement);
  #first = byId("fact-first", HTMLElement);
  #total = byId("fact-total", HTMLElement);
  #tokens = byId("fact-tokens", HTMLElement);
  /** @type {State} */
  #state = "empty";
  #startedMs = 0;
  #firstMs = 0;
  #endedMs = 0;
  /** @type {{promptTokens: number, answerTokens: number} | null} */
  #usage = null;
  #timer = 0;
  /** @type {unknown} */
  #error = null;
  /** @type {string | null} */
  #wanted = null;
  #cutShort = false;
  /** @type {"cached" | "joined" | null} whose answer it is, where another question was equal */
  #reuse = null;
  /** @type {{ahead: number, etaSeconds: number | null} | null} */
  #place = null;

  /** @param {string | null} wanted the right answer, where a sample's own question is asked */
  begin(wanted) {
    this.#startedMs = performance.now();
    this.#firstMs = 0;
    this.#usage = null;
    this.#error = null;
    this.#place = null;
    this.#reuse = null;
    this.#wanted = wanted;
    this.#text.textContent = "";
    this.#text.dataset.long = "false";
    this.#showRequest("");
    this.#timer = setInterval(() => this.render(), TICK_MS);
    this.#enter("waiting");
    this.#panel.scrollIntoView({ block: "nearest" }); // on a phone it is below the fold
  }

  /** @param {import("./task.js").AnswerEvent} event */
  take(event) {
    if (event.kind === "open") this.#showRequest(event.requestId);
    else if (event.kind === "text") this.#append(event.text);
    else if (event.kind === "usage") this.#usage = event;
    else if (event.kind === "finish") this.#conclude(event.reason, event.reuse);
    else if (event.kind === "restart") this.#startOver();
    else this.#stand(event.kind === "place" ? event : null);
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
    this.#error = error;
    if (error instanceof ApiError && error.requestId) this.#showRequest(error.requestId);
    this.#end("failed");
  }

  /** Writes the state in the language of now. */
  render() {
    const seconds = ((performance.now() - this.#startedMs) / 1000).toFixed(1);
    this.#panel.dataset.state = this.#state;
    this.#phase.textContent = this.#state === "empty" ? "" : text(this.#state, { seconds });
    if (this.#state === "waiting") this.#phase.setAttribute("aria-live", "off");
    else this.#phase.removeAttribute("aria-live");
    this.#renderPlace();
    this.#renderFacts();
    this.#renderExpected();
    this.#renderError();
  }

  /** @param {string} piece */
  #append(piece) {
    if (!this.#firstMs) this.#firstMs = performance.now();
    this.#text.append(piece);
    this.#text.dataset.long = String((this.#text.textContent ?? "").length > LONG_ANSWER);
    if (this.#state !== "streaming") this.#enter("streaming");
  }

  /** A worker died: what was written is void, and the answer starts over. */
  #startOver() {
    this.#text.textContent = "";
    this.#firstMs = 0;
    this.#enter("waiting");
  }

  /**
   * @param {string} reason
   * @param {"cached" | "joined" | null} reuse
   */
  #conclude(reason, reuse) {
    this.#cutShort = reason === "length";
    this.#reuse = reuse;
  }

  /** @param {{ahead: number, etaSeconds: number | null} | null} place in the queue; null: out of it */
  #stand(place) {
    this.#place = place;
    this.render();
  }

  #renderPlace() {
    const line = byId("place", HTMLParagraphElement);
    const place = this.#state === "waiting" ? this.#place : null;
    line.hidden = place === null;
    if (!place) return;
    const where = place.ahead === 0 ? text("next") : text("ahead", { count: place.ahead });
    const seconds = place.etaSeconds === null ? null : Math.max(1, Math.round(place.etaSeconds));
    line.textContent = seconds === null ? where : `${where} · ${text("expectedWait", { seconds })}`;
  }

  /** @param {State} state a last one */
  #end(state) {
    clearInterval(this.#timer);
    this.#endedMs = performance.now();
    this.#cutShort = false;
    this.#enter(state);
  }

  /** @param {State} state */
  #enter(state) {
    this.#state = state;
    this.render();
  }

  #renderFacts() {
    const over = this.#state !== "waiting" && this.#state !== "streaming";
    this.#facts.hidden = this.#state === "empty" || this.#state === "waiting";
    this.#facts.dataset.bare = String(over && !this.#firstMs);
    this.#first.textContent = this.#firstMs ? this.#since(this.#firstMs) : "–";
    this.#total.textContent = this.#since(over ? this.#endedMs : performance.now());
    const usage = this.#usage;
    this.#tokens.textContent = usage
      ? text("tokenCount", { answer: usage.answerTokens, prompt: usage.promptTokens })
      : "–";
    byId("source", HTMLDivElement).hidden = this.#reuse === null;
    byId("fact-source", HTMLElement).textContent = this.#reuse && text(this.#reuse);
  }

  #renderExpected() {
    const known = this.#wanted !== null && this.#state === "done";
    byId("expected", HTMLDivElement).hidden = !known;
    const value = byId("fact-expected", HTMLElement);
    value.textContent = this.#wanted;
    value.dataset.right = String(this.#text.textContent?.trim() === this.#wanted);
  }

  #renderError() {
    const box = byId("error", HTMLDivElement);
    box.hidden = this.#state !== "failed";
    if (box.hidden) return;
    const error = this.#error;
    const code = error instanceof ApiError ? error.code : "page_error";
    const words = errorWords(code);
    const retryAfter = error instanceof ApiError ? error.retryAfter : "";
    const mend = words?.mend ?? (error instanceof ApiError ? error.mend : "");
    byId("error-title", HTMLElement).textContent = words?.title ?? text("unknownError");
    byId("error-code", HTMLElement).textContent = code;
    byId("error-message", HTMLParagraphElement).textContent = error instanceof Error ? error.message : String(error);
    byId("error-mend", HTMLParagraphElement).textContent = retryAfter
      ? `${mend} ${text("retryAfter", { seconds: retryAfter })}`
      : mend;
  }

  /** @param {string} requestId */
  #showRequest(requestId) {
    byId("request", HTMLDivElement).hidden = requestId === "";
    byId("fact-request", HTMLElement).textContent = requestId;
  }

  /** @param {number} momentMs */
  #since(momentMs) {
    return text("seconds", { seconds: ((momentMs - this.#startedMs) / 1000).toFixed(2) });
  }
}
