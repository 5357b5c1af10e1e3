/** The part of DOMPurify that the pages use. */
declare const purify: {
  sanitize(
    markup: string,
    rules: { ALLOWED_TAGS: readonly string[]; ALLOWED_ATTR: readonly string[]; RETURN_DOM_FRAGMENT: true },
  ): DocumentFragment;
};
export default purify;
