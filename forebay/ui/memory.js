// @ts-check
/** What the page remembers in this browser. Where storage is refused it forgets, and works on. */

const PREFIX = "forebay.";

/**
 * @param {string} key
 * @returns {string | null}
 */
export function recall(key) {
  try {
    return localStorage.getItem(PREFIX + key);
  } catch {
    return null; // storage is blocked: nothing was remembered
  }
}

/**
 * What this tab remembers until it is closed: it outlives a reload, and no other tab has it.
 * @param {string} key
 * @returns {string | null}
 */
export function recallHere(key) {
  try {
    return sessionStorage.getItem(PREFIX + key);
  } catch {
    return null;
  }
}

/**
 * @param {string} key
 * @param {string | null} value null forgets it
 */
export function rememberHere(key, value) {
  try {
    if (value === null) sessionStorage.removeItem(PREFIX + key);
    else sessionStorage.setItem(PREFIX + key, value);
  } catch {
    // storage is blocked or full: a reload will not find it
  }
}

/**
 * @param {string} key
 * @param {string} value
 */
export function remember(key, value) {
  try {
    localStorage.setItem(PREFIX + key, value);
  } catch {
    // storage is blocked or full: the choice holds for this visit
  }
}
