// @ts-check
/** The page's words in two languages, and the one that is chosen. */

import { en } from "./words.en.js";
import { zh } from "./words.zh.js";
import { recall, remember } from "./memory.js";

/** @typedef {"en" | "zh"} Language */
/** @typedef {keyof typeof en.texts} TextKey */

const WORDS = { en, zh };
const LOCALES = { en: "en", zh: "zh-CN" };

/** @type {Language} */
let language = firstLanguage();
/** @type {(() => void)[]} */
const listeners = [];

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
  for (const listener of listeners) listener();
}

/** Has what is written here written anew when the language changes. @param {() => void} listener */
export function onLanguage(listener) {
  listeners.push(listener);
}

/**
 * @param {TextKey} key
 * @param {Record<string, string | number>} [values] for the {names} in the text
 * @returns {string}
 */
export function text(key, values = {}) {
  return filled(WORDS[language].texts[key], values);
}

/**
 * @param {string} words
 * @param {Record<string, string | number>} values for the {names} in the words
 * @returns {string}
 */
export function filled(words, values) {
  return words.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
}

/**
 * @param {TextKey} key
 * @returns {string[]} the text in each language
 */
export function inEveryLanguage(key) {
  return Object.values(WORDS).map((words) => words.texts[key]);
}

/**
 * @param {string} code of an error
 * @returns {{title: string, mend: string} | null} the page's own words for it
 */
export function errorWords(code) {
  const table = /** @type {Record<string, [string, string]>} */ (WORDS[language].errors);
  const found = Object.hasOwn(table, code) ? table[code] : null;
  return found && { title: found[0], mend: found[1] };
}

/** @returns {readonly string[]} example questions, those in the page's language first */
export function exampleQuestions() {
  const other = language === "en" ? zh : en;
  return [...WORDS[language].examples, ...other.examples.slice(0, 2)];
}

/** Writes the chosen language's words into every element that asks for one. */
export function applyWords() {
  document.documentElement.lang = LOCALES[language];
  for (const element of document.querySelectorAll("[data-text]")) {
    element.textContent = text(keyOf(element, "data-text"));
  }
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", text(keyOf(element, "data-label")));
  }
  for (const element of document.querySelectorAll("[data-hint]")) {
    element.setAttribute("title", text(keyOf(element, "data-hint")));
  }
  for (const element of document.querySelectorAll("[data-placeholder]")) {
    element.setAttribute("placeholder", text(keyOf(element, "data-placeholder")));
  }
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", String(button.getAttribute("data-language") === language));
  }
}

/**
 * @param {Element} element
 * @param {string} attribute
 */
function keyOf(element, attribute) {
  return /** @type {TextKey} */ (element.getAttribute(attribute));
}
