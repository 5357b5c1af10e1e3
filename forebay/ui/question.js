// @ts-check
/** The question's box: its words, what is wanted with them, and examples. */

import { byId, listItem, namedButton } from "./dom.js";
import { exampleQuestions, inEveryLanguage, text } from "./i18n.js";

/** @typedef {"ask" | "review"} Mode */

export class Question {
  #field = byId("question", HTMLTextAreaElement);
  #send = byId("send", HTMLButtonElement);
  #stop = byId("stop", HTMLButtonElement);
  #examples = byId("examples", HTMLUListElement);
  /** @type {Mode} */
  #mode = "ask";
  /** The question of the sample that is on the table, "" for none. */
  #sample = "";

  /** @param {() => void} ask told when a person wants the question asked */
  constructor(ask) {
    this.#field.addEventListener("input", () => this.#refresh());
    this.#field.addEventListener("keydown", (event) => {
      if (!endsQuestion(event)) return;
      event.preventDefault();
      ask();
    });
    byId("desk", HTMLFormElement).addEventListener("submit", (event) => {
      event.preventDefault();
      ask();
    });
    for (const button of document.querySelectorAll("[data-mode]")) {
      const wanted = button.getAttribute("data-mode") === "review" ? "review" : "ask";
      button.addEventListener("click", () => this.choose(wanted));
    }
    this.render();
    this.#refresh();
  }

  /** @returns {string} */
  get words() {
    return this.#field.value.trim();
  }

  /** @returns {Mode} */
  get mode() {
    return this.#mode;
  }

  /** @param {string} words */
  write(words) {
    this.#field.value = words;
    this.#refresh();
  }

  /** Writes a sample's question. @param {string} words "" where the sample was taken away: nothing is written */
  suggest(words) {
    this.#sample = words;
    if (words && this.#mode === "ask") this.write(words);
  }

  /** @param {Mode} wanted */
  choose(wanted) {
    const before = this.#mode;
    this.#mode = wanted;
    this.#showMode();
    if (before === wanted) return;
    if (wanted === "review") this.write(text("reviewPrompt"));
    else if (this.#isReviewPrompt()) this.write(this.#sample);
  }

  /** From asking to a review, or back. */
  turn() {
    this.choose(this.#mode === "ask" ? "review" : "ask");
  }

  /** Shows whether a question is under way. @param {boolean} running */
  show(running) {
    this.#send.hidden = running;
    this.#stop.hidden = !running;
  }

  focus() {
    this.#field.focus();
  }

  /** The words are there to be written anew. */
  select() {
    this.focus();
    this.#field.select();
  }

  /** Writes everything in the language of now. */
  render() {
    if (this.#isReviewPrompt()) this.write(text("reviewPrompt"));
    const items = exampleQuestions().map((words) => listItem(namedButton(words, () => this.#take(words))));
    this.#examples.replaceChildren(...items);
    this.#showMode();
  }

  /** @param {string} words of an example */
  #take(words) {
    this.write(words);
    this.focus();
  }

  #refresh() {
    this.#send.disabled = this.words === "";
  }

  #showMode() {
    for (const button of document.querySelectorAll("[data-mode]")) {
      button.setAttribute("aria-pressed", String(button.getAttribute("data-mode") === this.#mode));
    }
    this.#examples.hidden = this.#mode === "review";
    this.#send.textContent = text(this.#mode === "review" ? "sendReview" : "send");
  }

  #isReviewPrompt() {
    return inEveryLanguage("reviewPrompt").includes(this.words);
  }
}

/** @param {KeyboardEvent} event */
function endsQuestion(event) {
  const composing = event.isComposing || event.keyCode === 229; // Enter chooses a word there
  return event.key === "Enter" && !event.shiftKey && !event.ctrlKey && !event.metaKey && !composing;
}
