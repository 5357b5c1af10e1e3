// @ts-check
/** Tells what a model thought aloud from what it answers. */

/** @typedef {{thought: string, thinking: boolean, said: string}} Parts `thinking`: the thought has not ended */

const OPEN = "<think>";
const CLOSE = "</think>";
const ANSWER = /<\/?answer>/g;

/**
 * @param {string} text as far as it has come
 * @param {boolean} over nothing more comes
 * @returns {Parts}
 */
export function partsOf(text, over) {
  const close = text.indexOf(CLOSE);
  const open = text.indexOf(OPEN);
  if (close >= 0) {
    // some templates write the opening mark themselves, before the answer
    const thought = text.slice(open >= 0 && open < close ? open + OPEN.length : 0, close);
    return { thought: thought.trim(), thinking: false, said: answered(text.slice(close + CLOSE.length)) };
  }
  if (open >= 0 && text.slice(0, open).trim() === "") {
    return { thought: withoutHalf(text.slice(open + OPEN.length), CLOSE, over).trim(), thinking: true, said: "" };
  }
  return { thought: "", thinking: false, said: answered(withoutHalf(text, OPEN, over)) };
}

/** @param {string} text */
function answered(text) {
  return text.replace(ANSWER, "").trimStart();
}

/**
 * @param {string} text
 * @param {string} mark
 * @param {boolean} over
 * @returns {string} the text without the mark's first characters at its end: the rest is on its way
 */
function withoutHalf(text, mark, over) {
  for (let length = over ? 0 : mark.length - 1; length > 0; length--) {
    if (text.endsWith(mark.slice(0, length))) return text.slice(0, -length);
  }
  return text;
}
