// @ts-check
/** The choice of the two languages. */

import { h } from "./html.js";
import { currentLanguage, LOCALES, text } from "./i18n.js";

/** @param {(language: "en" | "zh") => void} choose */
export function languageSwitch(choose) {
  const choice = (/** @type {"en" | "zh"} */ language, /** @type {string} */ name) => {
    const button = h("button", { type: "button", lang: LOCALES[language], "data-language": language, "aria-pressed": String(language === currentLanguage()) }, name);
    button.addEventListener("click", () => choose(language));
    return button;
  };
  return h("div", { class: "switch", role: "group", "aria-label": text("language") }, choice("zh", "中文"), choice("en", "English"));
}
