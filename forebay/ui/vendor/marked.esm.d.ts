/** The part of marked that the pages use. */
export declare class Marked {
  constructor(options: { gfm?: boolean; breaks?: boolean; async?: false });
  parse(text: string): string | Promise<string>;
}
