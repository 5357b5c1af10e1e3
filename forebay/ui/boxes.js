// @ts-check
/** Places in a picture that an answer names, in the forms that the GLM family writes. */

/** In thousandths of the picture's width and height. @typedef {{x1: number, y1: number, x2: number, y2: number, label: string}} Box */

const FIGURE = String.raw`\s*(\d{1,4}(?:\.\d+)?)\s*`;
const QUADRUPLE = new RegExp(String.raw`\[${[FIGURE, FIGURE, FIGURE, FIGURE].join(",")}\]`, "g");
const LABEL = /"(?:label|text|name)"\s*:\s*"((?:[^"\\]|\\.)*)"/;
const WHOLE = 1000;
/** A smaller one is a list of numbers rather than a place. */
const SMALLEST = 4;
const MOST = 200;

const MARKS = /<\|(?:begin|end)_of_box\|>/g;
const BOXED = /<\|begin_of_box\|>([\s\S]*?)(?:<\|end_of_box\|>|$)/g;
/** The beginning of a mark that has not arrived whole. */
const HALF_MARK = /<(?:\|[a-z_]*\|?)?$/;

/**
 * @param {string} text an answer, `[[x1,y1,x2,y2]]`, `{"bbox_2d": [...], "label": "..."}`, in prose or not
 * @returns {Box[]} at most some hundreds, each once
 */
export function boxesIn(text) {
  /** @type {Map<string, Box>} */
  const found = new Map();
  for (const match of text.matchAll(QUADRUPLE)) {
    const [x1, y1, x2, y2] = match.slice(1, 5).map(Number);
    const small = x2 - x1 < SMALLEST || y2 - y1 < SMALLEST;
    if (small || Math.max(x2, y2) > WHOLE) continue;
    if (found.size < MOST) found.set(match[0].replace(/\s/g, ""), { x1, y1, x2, y2, label: labelAt(text, match.index) });
  }
  return [...found.values()];
}

/**
 * @param {string} text
 * @param {number} at where coordinates begin
 * @returns {string} the label in the same JSON object, "" for none
 */
function labelAt(text, at) {
  const open = text.lastIndexOf("{", at);
  const close = text.indexOf("}", at);
  if (open < 0 || close < 0 || text.slice(open, at).includes("}")) return "";
  const found = LABEL.exec(text.slice(open, close));
  if (!found) return "";
  try {
    return JSON.parse(`"${found[1]}"`);
  } catch {
    return found[1]; // an escape that JSON does not know: as it was written
  }
}

/**
 * @param {string} text
 * @param {boolean} over nothing more comes
 * @returns {string} the text with the model's marks around its final answer made into Markdown's own
 */
export function withoutMarks(text, over) {
  return (over ? text : text.replace(HALF_MARK, ""))
    .replace(BOXED, (_, inner) => (inner.includes("\n") ? inner : `<mark>${inner}</mark>`))
    .replace(MARKS, "");
}

const SVG = "http://www.w3.org/2000/svg";

/**
 * Draws the boxes over a picture that is shown whole and centred in the drawing's frame.
 * @param {SVGSVGElement} drawing
 * @param {readonly Box[]} boxes
 * @param {import("./grid.js").Size} size of the picture
 */
export function drawBoxes(drawing, boxes, { width, height }) {
  drawing.replaceChildren();
  drawing.toggleAttribute("hidden", boxes.length === 0);
  if (!width || !height) return;
  drawing.setAttribute("viewBox", `0 0 ${width} ${height}`);
  boxes.forEach((box, index) => {
    const place = { x: (box.x1 * width) / WHOLE, y: (box.y1 * height) / WHOLE };
    const span = { width: ((box.x2 - box.x1) * width) / WHOLE, height: ((box.y2 - box.y1) * height) / WHOLE };
    drawing.append(shape("rect", { ...place, ...span }));
    const size = Math.max(width, height) / 24;
    const label = shape("text", { x: place.x + size * 0.25, y: Math.max(place.y - size * 0.35, size), "font-size": size });
    label.textContent = box.label ? `${index + 1} ${box.label}` : String(index + 1);
    drawing.append(label);
  });
}

/**
 * @param {string} name
 * @param {Record<string, number>} facts
 */
function shape(name, facts) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(facts)) made.setAttribute(key, String(value));
  return made;
}
