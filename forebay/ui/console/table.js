// @ts-check
/** A table that keeps its rows: a refresh writes only what changed, so focus and selection stay. */

import { NOTHING } from "./format.js";
import { fill, h, say } from "./html.js";
import { text } from "./i18n.js";

/**
 * @template Row
 * @typedef {object} Cell what a column makes once for each row; `update` is called at each refresh
 * @property {Node} node
 * @property {(row: Row) => void} update
 */
/**
 * @template Row
 * @typedef {object} Column
 * @property {string} name its heading
 * @property {(row: Row) => string} [words] a plain text
 * @property {(row: () => Row) => Cell<Row>} [make] anything else; `row()` is the row as it is now
 * @property {string} [kind] "number", "code", "wide", "deeds"
 * @property {(row: Row) => string} [tone] "good", "warn", "bad", "faint" or ""
 * @property {(row: Row) => unknown} [raw] for CSV, where it is not the words
 */

/**
 * @template Row
 * @typedef {{tr: HTMLTableRowElement, row: Row, cells: ((row: Row) => void)[]}} Kept
 */

/** @template Row */
export class Table {
  /** @type {Map<string, Kept<Row>>} */
  #rows = new Map();
  #columns;
  #keyOf;
  #empty;
  #body = h("tbody", { role: "rowgroup" });
  #none;

  /**
   * @param {{label: string, columns: Column<Row>[], keyOf: (row: Row) => string, empty: string}} plan
   */
  constructor({ label, columns, keyOf, empty }) {
    this.#columns = columns;
    this.#keyOf = keyOf;
    this.#empty = empty;
    this.#none = h("p", { class: "none", hidden: true }, empty);
    // a phone shows each row as a card; the roles keep it a table for a screen reader
    const head = columns.map((one) => h("th", { scope: "col", role: "columnheader", class: one.kind === "code" ? "" : (one.kind ?? "") }, one.name));
    const table = h(
      "table",
      { role: "table", "aria-label": label },
      h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, ...head)),
      this.#body,
    );
    this.element = h("div", { class: "table" }, table, this.#none);
  }

  /** @returns {Row[]} as they are shown */
  get rows() {
    return [...this.#rows.values()].map((one) => one.row);
  }

  /** @param {Row[]} rows in the order to be shown */
  show(rows) {
    const keys = rows.map(this.#keyOf);
    for (const [key, { tr }] of this.#rows) {
      if (keys.includes(key)) continue;
      tr.remove();
      this.#rows.delete(key);
    }
    /** @type {Map<string, Kept<Row>>} */
    const ordered = new Map();
    rows.forEach((row, at) => {
      const kept = this.#rows.get(keys[at]) ?? this.#made(row);
      kept.row = row;
      for (const update of kept.cells) update(row);
      ordered.set(keys[at], kept);
      // moved only where it is out of place: to move a row takes the focus from its buttons
      if (this.#body.children[at] !== kept.tr) this.#body.insertBefore(kept.tr, this.#body.children[at] ?? null);
    });
    this.#rows = ordered;
    this.#none.hidden = rows.length > 0;
    this.#none.textContent = this.#empty;
  }

  /** @param {Node} content in place of rows, such as why there are none */
  showInstead(content) {
    this.#rows.clear();
    fill(this.#body);
    fill(this.#none, content);
    this.#none.hidden = false;
  }

  /** @returns {[string[], unknown[][]]} columns and rows for CSV */
  plain() {
    const told = this.#columns.filter((one) => one.raw || one.words);
    const rows = this.rows.map((row) => told.map((one) => (one.raw ?? one.words)?.(row)));
    return [told.map((one) => one.name), rows];
  }

  /** @param {Row} first */
  #made(first) {
    const entry = { tr: h("tr", { role: "row" }), row: first, cells: /** @type {((row: Row) => void)[]} */ ([]) };
    for (const column of this.#columns) {
      const td = h("td", { role: "cell", class: column.kind ?? "", "data-name": column.name });
      entry.cells.push(filler(column, td, () => entry.row));
      entry.tr.append(td);
    }
    return entry;
  }
}

/**
 * @template Row
 * @param {Column<Row>} column
 * @param {HTMLTableCellElement} td
 * @param {() => Row} current
 * @returns {(row: Row) => void} what brings the cell up to date
 */
function filler(column, td, current) {
  if (column.make) {
    const { node, update } = column.make(current);
    td.append(node);
    return update;
  }
  return (row) => {
    const words = column.words?.(row) ?? "";
    say(td, words);
    td.toggleAttribute("data-none", words === "" || words === NOTHING);
    const tone = column.tone?.(row) ?? "";
    if ((td.dataset.tone ?? "") !== tone) td.dataset.tone = tone;
  };
}

/**
 * @template Row
 * @param {(row: Row) => {word: string, tone: string}} stateOf
 * @returns {(row: () => Row) => Cell<Row>} a cell with a state's lamp and word
 */
export function pill(stateOf) {
  return () => {
    const node = h("span", { class: "pill" });
    return {
      node,
      update(row) {
        const { word, tone } = stateOf(row);
        say(node, word);
        node.dataset.tone = tone;
      },
    };
  };
}

/**
 * @template Row
 * @param {(row: Row) => number | null} shareOf 0 to 1
 * @param {(row: Row) => string} wordsOf
 * @returns {(row: () => Row) => Cell<Row>} a small bar with its figure
 */
export function bar(shareOf, wordsOf) {
  return () => {
    const full = h("i");
    const words = h("span");
    const track = h("span", { class: "track", "aria-hidden": "true" }, full);
    return {
      node: h("span", { class: "bar-cell" }, words, track),
      update(row) {
        const share = shareOf(row);
        say(words, wordsOf(row));
        track.dataset.none = String(share === null);
        full.style.width = `${Math.round(100 * Math.min(1, share ?? 0))}%`;
      },
    };
  };
}

/**
 * @template Row
 * @param {(row: Row) => string} firstOf
 * @param {(row: Row) => string} secondOf what is looked for more seldom
 * @returns {(row: () => Row) => Cell<Row>}
 */
export function twoLines(firstOf, secondOf) {
  return () => {
    const [first, second] = [h("span"), h("small")];
    return {
      node: h("span", { class: "two-lines" }, first, second),
      update(row) {
        say(first, firstOf(row));
        say(second, secondOf(row));
      },
    };
  };
}

/**
 * @template Row
 * @typedef {object} RowDeed
 * @property {string} name
 * @property {(row: Row, button: HTMLButtonElement) => void} act
 * @property {(row: Row) => boolean} [fits] whether the row has it now
 * @property {(row: Row) => string} subject what of the row is read out after the name
 * @property {boolean} [harm]
 */

/**
 * @template Row
 * @param {RowDeed<Row>[]} choices
 * @returns {(row: () => Row) => Cell<Row>} the buttons of a row
 */
export function deeds(choices) {
  return (current) => {
    const buttons = choices.map((one) => {
      const button = h("button", { type: "button", class: `small ${one.harm ? "harm-text" : ""}` }, one.name);
      button.addEventListener("click", () => one.act(current(), button));
      return button;
    });
    return {
      node: h("span", { class: "row-deeds" }, ...buttons),
      update(row) {
        choices.forEach((one, at) => {
          buttons[at].hidden = !(one.fits?.(row) ?? true);
          buttons[at].setAttribute("aria-label", text("deedOn", { deed: one.name, subject: one.subject(row) }));
        });
      },
    };
  };
}
