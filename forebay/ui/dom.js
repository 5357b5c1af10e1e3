// @ts-check
/** Finding and making elements, with their types. */

/**
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} type
 * @returns {T} the element of that id. Throws when the page has none of that type.
 */
export function byId(id, type) {
  const found = document.getElementById(id);
  if (!(found instanceof type)) throw new Error(`no ${type.name} with id ${id}`);
  return found;
}

/**
 * @param {Node[]} content
 * @returns {HTMLLIElement} a list item that holds it
 */
export function listItem(...content) {
  const item = document.createElement("li");
  item.append(...content);
  return item;
}

/**
 * @param {() => void} action
 * @returns {HTMLButtonElement} a button that does it
 */
export function actionButton(action) {
  const button = document.createElement("button");
  button.type = "button";
  button.addEventListener("click", action);
  return button;
}

/**
 * @template {keyof HTMLElementTagNameMap} N
 * @param {N} name
 * @param {string} className "" for none
 * @param {(Node | string)[]} content
 * @returns {HTMLElementTagNameMap[N]} an element that holds it
 */
export function made(name, className, ...content) {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.append(...content);
  return element;
}

/**
 * @param {string} words
 * @param {() => void} action
 * @returns {HTMLButtonElement} a button that says so and does it
 */
export function namedButton(words, action) {
  const button = actionButton(action);
  button.textContent = words;
  return button;
}

/**
 * @param {string} selector
 * @returns {SVGSVGElement} the drawing of that selector. Throws when the page has none.
 */
export function drawing(selector) {
  const found = document.querySelector(selector);
  if (!(found instanceof SVGSVGElement)) throw new Error(`no drawing ${selector}`);
  return found;
}

/**
 * Shows words on a button for a moment: it did what it says.
 * @param {HTMLButtonElement} button
 * @param {string} words
 */
export function flash(button, words) {
  const before = button.textContent;
  button.textContent = words;
  setTimeout(() => {
    if (button.textContent === words) button.textContent = before;
  }, 1_500);
}
