// @ts-check
/** Builds elements. No markup is ever written: what the server says stays text. */

/** @typedef {Node | string | null | undefined | false} Child */
/** @typedef {Record<string, string | number | boolean | null | undefined | ((event: any) => void)>} Attributes */

const SVG = "http://www.w3.org/2000/svg";

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Attributes} [attributes] a function under `onclick` and the like listens; false, null
 *   and undefined are left out; true is an attribute without a value
 * @param {Child[]} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  dress(made, attributes);
  made.append(...solid(children));
  return made;
}

/**
 * @param {string} path the `d` of a drawing in a 20 by 20 box
 * @returns {SVGSVGElement} an icon that screen readers pass over
 */
export function icon(path) {
  const made = document.createElementNS(SVG, "svg");
  const line = document.createElementNS(SVG, "path");
  dress(made, { viewBox: "0 0 20 20", "aria-hidden": "true", class: "icon" });
  line.setAttribute("d", path);
  made.append(line);
  return made;
}

/**
 * Replaces what an element holds.
 * @param {Element} element
 * @param {Child[]} children
 */
export function fill(element, ...children) {
  element.replaceChildren(...solid(children));
}

/**
 * Writes a text only where it differs: what does not change is not read out again.
 * @param {Element} element
 * @param {string} words
 */
export function say(element, words) {
  if (element.textContent !== words) element.textContent = words;
}

/**
 * @param {Element} element
 * @param {Attributes} attributes
 */
function dress(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, String(value));
    }
  }
}

/** @param {Child[]} children */
function solid(children) {
  return /** @type {(Node | string)[]} */ (children.filter((one) => one || one === ""));
}
