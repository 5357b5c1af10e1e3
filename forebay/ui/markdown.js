// @ts-check
/** Markdown from a model, which nobody trusts, as elements that can do nothing but be read. */

import { Marked } from "./vendor/marked.esm.js";
import purify from "./vendor/purify.es.mjs";

/** Markup that a model may write by hand, bare of attributes; any other is shown as it was written. */
const BARE_TAG = /^<\/?(?:br|b|i|u|em|strong|del|mark|sub|sup|code|p)\s*\/?>$/i;
const ANY_TAG = /<[^>]*>?|&(?!#?\w+;)|>/g;

const reader = new Marked({
  gfm: true,
  breaks: true,
  async: false,
  renderer: {
    html: ({ text }) => text.replace(ANY_TAG, (tag) => (BARE_TAG.test(tag) ? tag : escaped(tag))),
    image: ({ href, text }) => `<a href="${escaped(href)}">${escaped(text || href)}</a>`,
  },
});

/** @param {string} text */
function escaped(text) {
  return text.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
}

/** No picture, frame, form, style or script: an answer loads nothing and looks like the page. */
const RULES = /** @type {const} */ ({
  ALLOWED_TAGS: [
    ...["p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "strong", "em", "del", "b", "i", "u", "mark", "sub", "sup"],
    ...["code", "pre", "blockquote", "ul", "ol", "li", "table", "thead", "tbody", "tr", "th", "td", "a"],
  ],
  ALLOWED_ATTR: ["href", "title", "start", "align"],
  RETURN_DOM_FRAGMENT: true,
});

/**
 * @param {string} text Markdown
 * @returns {DocumentFragment}
 */
export function rendered(text) {
  const fragment = purify.sanitize(String(reader.parse(text)), RULES);
  for (const link of fragment.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
  }
  for (const wide of fragment.querySelectorAll("pre, table")) {
    const frame = document.createElement("div"); // it scrolls by itself, and the page does not
    frame.className = "wide";
    frame.tabIndex = 0;
    wide.replaceWith(frame);
    frame.append(wide);
  }
  return fragment;
}
