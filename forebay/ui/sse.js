// @ts-check
/** Reads server-sent events from a fetch body, as the HTML standard parses them. */

/** @typedef {{event: string, data: string, id: string}} ServerEvent */

/** A line may be this long, in characters; a longer one means that this is no event stream. */
const LONGEST_LINE = 1 << 20;

/** Splits text that arrives in pieces into lines ended by LF, CR or CRLF. */
class LineReader {
  #rest = "";
  #endedWithReturn = false;

  /**
   * @param {string} text the next piece
   * @returns {string[]} the lines that are whole now
   */
  push(text) {
    if (this.#endedWithReturn && text.startsWith("\n")) text = text.slice(1);
    if (text !== "") this.#endedWithReturn = text.endsWith("\r");
    const lines = (this.#rest + text).split(/\r\n|\n|\r/);
    this.#rest = lines.pop() ?? "";
    if (this.#rest.length > LONGEST_LINE) throw new Error("the answer is not an event stream");
    return lines;
  }
}

/** Gathers lines into events; an empty line ends one. */
class EventBuilder {
  #event = "";
  /** @type {string[]} */
  #data = [];
  #id = "";

  /**
   * @param {string} line
   * @returns {ServerEvent | null} an event when this line ended one
   */
  line(line) {
    if (line === "") return this.#finish();
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line) ?? ["", "", ""];
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#event = value;
    else if (field === "id") this.#id = value;
    return null;
  }

  #finish() {
    const found = { event: this.#event || "message", data: this.#data.join("\n"), id: this.#id };
    const empty = this.#data.length === 0;
    this.#event = "";
    this.#data = [];
    return empty ? null : found;
  }
}

/**
 * Yields the events of a response's body until it ends.
 * @param {ReadableStream<Uint8Array>} body
 * @returns {AsyncGenerator<ServerEvent, void, void>}
 */
export async function* readEvents(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  const lines = new LineReader();
  const builder = new EventBuilder();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      for (const line of lines.push(decoder.decode(value, { stream: !done }))) {
        const event = builder.line(line);
        if (event) yield event;
      }
      if (done) return;
    }
  } finally {
    await reader.cancel().catch(() => undefined); // the body may have failed already
  }
}
