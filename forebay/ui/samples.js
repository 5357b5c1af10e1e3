// @ts-check
/** The strip of sample pictures. */

import { listSamples, sampleAddress } from "./api.js";
import { actionButton, byId, listItem } from "./dom.js";
import { currentLanguage, text } from "./i18n.js";

/** @typedef {import("./api.js").Sample} Sample */

export class Samples {
  #box = byId("samples", HTMLDivElement);
  #strip = byId("strip", HTMLUListElement);
  /** @type {Sample[]} */
  #samples = [];
  /** @type {Sample | null} */
  #chosen = null;
  #choose;

  /** @param {(sample: Sample) => void} choose called with the sample that was clicked */
  constructor(choose) {
    this.#choose = choose;
  }

  /** Fetches the list; the strip stays hidden where there is none. */
  async load() {
    this.#samples = await listSamples();
    this.#box.hidden = this.#samples.length === 0;
    this.show();
  }

  /** Draws the strip: the page's language first, skills in turn. */
  show() {
    const ordered = inTurn(this.#samples, currentLanguage());
    this.#strip.replaceChildren(...ordered.map((sample, index) => this.#item(sample, index + 1)));
    this.mark(this.#chosen);
  }

  /** @param {Sample | null} chosen the sample that is on the table now */
  mark(chosen) {
    this.#chosen = chosen;
    for (const button of this.#strip.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(button.dataset.file === chosen?.file));
    }
  }

  /**
   * @param {Sample} sample
   * @param {number} number
   */
  #item(sample, number) {
    const button = actionButton(() => this.#choose(sample));
    button.dataset.file = sample.file;
    button.title = sample.question;
    button.setAttribute("aria-label", text("sampleLabel", { number, question: sample.question }));
    const image = document.createElement("img");
    image.src = sampleAddress(sample);
    image.alt = "";
    image.loading = "lazy";
    button.append(image);
    return listItem(button);
  }
}

/**
 * @param {Sample[]} samples
 * @param {string} language the page's
 * @returns {Sample[]} that language's samples before the others, one of each skill after the other
 */
function inTurn(samples, language) {
  /** @type {Map<string, number>} */
  const seen = new Map();
  const ranked = samples.map((sample) => {
    const kind = `${sample.language} ${sample.skill}`;
    const turn = seen.get(kind) ?? 0;
    seen.set(kind, turn + 1);
    return { sample, foreign: sample.language === language ? 0 : 1, turn };
  });
  ranked.sort((a, b) => a.foreign - b.foreign || a.turn - b.turn);
  return ranked.map(({ sample }) => sample);
}
