// @ts-check
/** The console's words in two languages. The choice is the same as the other page's. */

import { currentLanguage, errorWords as sharedWords, filled } from "../i18n.js";
import { en } from "./words.en.js";
import { zh } from "./words.zh.js";

export { chooseLanguage, currentLanguage } from "../i18n.js";

/** @typedef {keyof typeof en.texts} TextKey */
/** @typedef {Exclude<keyof typeof en, "texts">} TableName */

const WORDS = { en, zh };
export const LOCALES = { en: "en-GB", zh: "zh-CN" };

/**
 * @param {TextKey} key
 * @param {Record<string, string | number>} [values] for the {names} in the text
 * @returns {string}
 */
export function text(key, values = {}) {
  return filled(WORDS[currentLanguage()].texts[key], values);
}

/**
 * The word for something that the server names: a state, a reason, a deed.
 * @param {TableName} table
 * @param {string} code
 * @param {Record<string, string | number>} [values]
 * @returns {string} the code itself where this page, older than its server, has no word for it
 */
export function word(table, code, values = {}) {
  const words = /** @type {Record<string, string>} */ (WORDS[currentLanguage()][table]);
  return Object.hasOwn(words, code) ? filled(words[code], values) : code;
}

/**
 * @param {string} code of an error
 * @returns {{title: string, mend: string} | null}
 */
export function errorWords(code) {
  const own = /** @type {Record<string, readonly string[]>} */ (WORDS[currentLanguage()].errors);
  if (!Object.hasOwn(own, code)) return sharedWords(code);
  return { title: own[code][0], mend: own[code][1] };
}
