/** The part of marked that the pages use. */
export declare class Marked {
  constructor(options: {
    gfm?: boolean;
    breaks?: boolean;
    async?: false;
    renderer?: { html(token: { text: string }): string; image(token: { href: string; text: string }): string };
  });
  parse(text: string): string | Promise<string>;
}
