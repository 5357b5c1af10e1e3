// @ts-check
/** The console's words in two languages. The choice is the same as the other page's. */

import { recall, remember } from "../memory.js";
import { en as pageEn } from "../words.en.js";
import { zh as pageZh } from "../words.zh.js";
import { en } from "./words.en.js";
import { zh } from "./words.zh.js";

/** @typedef {"en" | "zh"} Language */
/** @typedef {keyof typeof en.texts} TextKey */
/** @typedef {Exclude<keyof typeof en, "texts">} TableName */

const WORDS = { en, zh };
const ERRORS = { en: pageEn.errors, zh: pageZh.errors };
export const LOCALES = { en: "en-GB", zh: "zh-CN" };

/** @type {Language} */
let language = firstLanguage();

/** @returns {Language} the remembered choice, else the browser's */
function firstLanguage() {
  const remembered = recall("language");
  if (remembered === "en" || remembered === "zh") return remembered;
  return navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
}

/** @returns {Language} */
export function currentLanguage() {
  return language;
}

/** @param {Language} chosen */
export function chooseLanguage(chosen) {
  language = chosen;
  remember("language", chosen);
}

/**
 * @param {TextKey} key
 * @param {Record<string, string | number>} [values] for the {names} in the text
 * @returns {string}
 */
export function text(key, values = {}) {
  return fill(WORDS[language].texts[key], values);
}

/**
 * The word for something that the server names: a state, a reason, a deed.
 * @param {TableName} table
 * @param {string} code
 * @param {Record<string, string | number>} [values]
 * @returns {string} the code itself where this page, older than its server, has no word for it
 */
export function word(table, code, values = {}) {
  const words = /** @type {Record<string, string>} */ (WORDS[language][table]);
  return Object.hasOwn(words, code) ? fill(words[code], values) : code;
}

/**
 * @param {string} code of an error
 * @returns {{title: string, mend: string} | null}
 */
export function errorWords(code) {
  const own = /** @type {Record<string, readonly string[]>} */ (WORDS[language].errors);
  const shared = /** @type {Record<string, readonly string[]>} */ (ERRORS[language]);
  const found = Object.hasOwn(own, code) ? own[code] : shared[code];
  return found ? { title: found[0], mend: found[1] } : null;
}

/**
 * @param {string} words
 * @param {Record<string, string | number>} values
 */
function fill(words, values) {
  return words.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
}
