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
