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
