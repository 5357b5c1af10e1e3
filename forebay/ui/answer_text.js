// @ts-check
/** An answer's words: Markdown as it streams, its thinking folded away, and the places it names. */

import { boxesIn, withoutMarks } from "./boxes.js";
import { byId } from "./dom.js";
import { text } from "./i18n.js";
import { rendered } from "./markdown.js";
import { partsOf } from "./thinking.js";

/** @typedef {import("./boxes.js").Box} Box */

const LONG_ANSWER = 120;
/** Of a long answer the writing takes longer: this share of the time is left to everything else. */
const REST = 4;
/** Longer answers are not read aloud whole at their end. */
const LONGEST_SPOKEN = 1_000;

export class AnswerText {
  #box = byId("answer-text", HTMLDivElement);
  #thinking = byId("thinking", HTMLDetailsElement);
  #spoken = byId("said", HTMLParagraphElement);
  #text = "";
  #over = true;
  #timer = 0;
  #pauseMs = 0;
  /** A person opened or closed the thinking: it stays so. */
  #chosen = false;
  #onBoxes;

  /** @param {(boxes: Box[]) => void} onBoxes told of the places that the answer names */
  constructor(onBoxes) {
    this.#onBoxes = onBoxes;
    this.#thinking.querySelector("summary")?.addEventListener("click", () => (this.#chosen = true));
  }

  /** @returns {string} what has come, as it came */
  get whole() {
    return this.#text;
  }

  /** @returns {string} the answer itself, without thinking and marks */
  get said() {
    return withoutMarks(partsOf(this.#text, this.#over).said, this.#over).replace(/<\/?mark>/g, "").trim();
  }

  /** @param {string} words what is there already */
  begin(words) {
    this.#chosen = false;
    this.#text = words;
    this.#over = false;
    this.#spoken.textContent = "";
    this.#draw();
  }

  /** @param {string} piece */
  append(piece) {
    this.#text += piece;
    if (!this.#timer) this.#timer = setTimeout(() => this.#draw(), this.#pauseMs);
  }

  /** Nothing more comes. @param {boolean} aloud whether it is told to those who listen */
  end(aloud) {
    this.#over = true;
    this.#draw();
    this.#onBoxes(boxesIn(partsOf(this.#text, this.#over).said));
    const said = this.#box.textContent ?? "";
    if (aloud && said.length <= LONGEST_SPOKEN) this.#spoken.textContent = said;
  }

  /** Writes the words around the answer in the language of now. */
  render() {
    const { thinking } = partsOf(this.#text, this.#over);
    byId("thinking-title", HTMLSpanElement).textContent = text(thinking && !this.#over ? "thinking" : "thought");
  }

  #draw() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    const began = performance.now();
    const { thought, thinking, said } = partsOf(this.#text, this.#over);
    this.#thinking.hidden = thought === "";
    byId("thinking-text", HTMLDivElement).replaceChildren(rendered(thought));
    if (!this.#chosen) this.#thinking.open = thinking && !this.#over;
    this.#box.replaceChildren(rendered(withoutMarks(said, this.#over)));
    this.#box.dataset.long = String(said.length > LONG_ANSWER || said.includes("\n"));
    this.render();
    this.#pauseMs = REST * (performance.now() - began);
  }
}
