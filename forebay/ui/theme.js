// @ts-check
/** Light or dark: the system's choice until a person makes their own. */

import { recall, remember } from "./memory.js";

const system = matchMedia("(prefers-color-scheme: dark)");

/** Follows the system, and the button. @param {HTMLButtonElement} button */
export function followTheme(button) {
  apply();
  system.addEventListener("change", apply);
  button.addEventListener("click", () => {
    remember("theme", current() === "dark" ? "light" : "dark");
    apply();
  });
}

/** @returns {"light" | "dark"} */
function current() {
  const chosen = recall("theme");
  if (chosen === "light" || chosen === "dark") return chosen;
  return system.matches ? "dark" : "light";
}

function apply() {
  document.documentElement.dataset.theme = current();
}
