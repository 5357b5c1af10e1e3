// @ts-check
/** The pictures to ask about, in order; one of them is on show. */

import { drawBoxes } from "./boxes.js";
import { actionButton, byId, drawing, listItem, made } from "./dom.js";
import { visualTokens } from "./grid.js";
import { text } from "./i18n.js";
import { prepare } from "./shrink.js";

/** @typedef {import("./api.js").Vision} Vision */
/** @typedef {import("./boxes.js").Box} Box */
/** @typedef {import("./grid.js").Size} Size */
/** As it is asked about and kept. @typedef {{name: string, blob: Blob | null, url: string}} Sent */
/**
 * `address`: what an `img` shows, "" for a picture elsewhere; `original`, `size`: as given and as
 * sent, once known; `ready`: it may be sent.
 * @typedef {{name: string, blob: Blob | null, url: string, address: string, original: Size | null,
 *   size: Size | null, sent: Blob | null, ready: Promise<void>}} Item
 */

export class Tray {
  #drop = byId("drop", HTMLDivElement);
  #figure = byId("preview", HTMLElement);
  #image = byId("preview-image", HTMLImageElement);
  #elsewhere = byId("elsewhere", HTMLParagraphElement);
  #strip = byId("tray", HTMLUListElement);
  #boxes = drawing("#boxes");
  /** @type {Item[]} */
  #items = [];
  #shown = 0;
  /** @type {Vision | null} */
  #vision = null;
  /** @type {Box[]} */
  #found = [];
  /** A question has been asked about these: the next picture begins a new one. */
  #spent = false;
  #onChange;

  /** @param {() => void} onChange told when a person changed the pictures */
  constructor(onChange) {
    this.#onChange = onChange;
    this.#image.addEventListener("load", () => this.#measure());
    byId("remove", HTMLButtonElement).addEventListener("click", () => this.#remove());
  }

  /** @returns {number} how many there are */
  get count() {
    return this.#items.length;
  }

  /** @returns {{address: string, size: Size | null, name: string} | null} the one on show, where it can be shown */
  get onShow() {
    const item = this.#items[this.#shown];
    return item?.address ? { address: item.address, size: item.original, name: item.name } : null;
  }

  /** @returns {readonly Box[]} places in the picture on show */
  get boxes() {
    return this.#found;
  }

  /** @param {Vision} vision */
  see(vision) {
    this.#vision = vision;
    for (const item of this.#items) item.ready = this.#prepare(item);
    this.render();
  }

  /**
   * @param {readonly File[]} files
   * @param {boolean} beside kept beside those that were asked about already
   */
  add(files, beside = false) {
    if (files.length) this.#put(files.map(itemOf), beside);
  }

  /** @param {string} url of a picture that the server will fetch */
  addUrl(url) {
    this.#put([itemElsewhere(url)], false);
  }

  /** @param {readonly File[]} files instead of all that is there; no person's own change */
  replace(files) {
    this.#clear();
    this.#put(files.map(itemOf), false, true);
  }

  /** @param {readonly Sent[]} pictures as they were sent before */
  restore(pictures) {
    this.#clear();
    const items = pictures.map((one) =>
      one.blob ? itemOf(new File([one.blob], one.name, { type: one.blob.type })) : itemElsewhere(one.url),
    );
    this.#put(items, true, true);
    this.#spent = true;
  }

  /** @returns {Promise<Sent[]>} what is sent of each, shrunk */
  async toSend() {
    this.#spent = true;
    const items = [...this.#items];
    await Promise.all(items.map((item) => item.ready));
    return items.map((item) => ({ name: item.name, blob: item.sent ?? item.blob, url: item.url }));
  }

  /** @param {Box[]} boxes places that an answer names in the picture on show */
  draw(boxes) {
    this.#found = boxes;
    this.#drawBoxes();
  }

  /** Shows the next picture, or the one before. @param {number} step */
  turn(step) {
    if (this.#items.length) this.#show((this.#shown + step + this.#items.length) % this.#items.length);
  }

  /** Writes everything in the language of now. */
  render() {
    const item = this.#items[this.#shown];
    this.#drop.dataset.filled = String(Boolean(item));
    this.#figure.hidden = !item;
    byId("preview-name", HTMLSpanElement).textContent = item?.name ?? "";
    byId("preview-facts", HTMLSpanElement).textContent = item ? this.#factsOf(item) : "";
    this.#elsewhere.hidden = !item || item.address !== "";
    this.#elsewhere.textContent = item?.url ? text("elsewhere", { host: hostOf(item.url) }) : "";
    this.#image.hidden = !item?.address;
    byId("zoom", HTMLButtonElement).hidden = !item?.address;
    this.#strip.hidden = this.#items.length < 2;
    this.#strip.replaceChildren(...this.#items.map((one, index) => this.#thumb(one, index)));
    this.#renderCost();
  }

  /**
   * @param {Item[]} items
   * @param {boolean} beside
   * @param {boolean} [own] of the page's own doing
   */
  #put(items, beside, own = false) {
    if (this.#spent && !beside) this.#clear();
    this.#spent = false;
    const room = (this.#vision?.max_images ?? Infinity) - this.#items.length;
    for (const item of items.slice(room)) URL.revokeObjectURL(item.address);
    const taken = items.slice(0, Math.max(0, room));
    this.#items.push(...taken);
    for (const item of taken) item.ready = this.#prepare(item);
    this.#show(Math.max(0, this.#items.length - taken.length));
    if (!own) this.#onChange();
  }

  #clear() {
    for (const item of this.#items) URL.revokeObjectURL(item.address);
    this.#items = [];
    this.#shown = 0;
    this.#found = [];
    this.#image.removeAttribute("src");
  }

  #remove() {
    const [gone] = this.#items.splice(this.#shown, 1);
    URL.revokeObjectURL(gone.address);
    this.#show(Math.max(0, Math.min(this.#shown, this.#items.length - 1)));
    this.#onChange();
    byId("file", HTMLInputElement).focus();
  }

  /** @param {number} index */
  #show(index) {
    if (index !== this.#shown) this.#found = [];
    this.#shown = index;
    const item = this.#items[index];
    if (item?.address) {
      this.#image.src = item.address;
      this.#image.alt = item.name;
    } else {
      this.#image.removeAttribute("src");
      this.#image.alt = "";
    }
    this.#drawBoxes();
    this.render();
  }

  /** @param {Item} item */
  async #prepare(item) {
    if (!item.blob) return;
    const side = this.#vision?.image_side ?? 0;
    const prepared = await prepare(item.blob, side);
    if (!prepared) return;
    item.sent = prepared.blob;
    item.size = prepared.size;
    this.render();
  }

  /** The picture is on show: its own size is known. */
  #measure() {
    const item = this.#items[this.#shown];
    if (!item?.address || this.#image.src !== item.address) return;
    item.original = { width: this.#image.naturalWidth, height: this.#image.naturalHeight };
    this.#drawBoxes();
    this.render();
  }

  #drawBoxes() {
    const size = this.#items[this.#shown]?.original;
    drawBoxes(this.#boxes, size ? this.#found : [], size ?? { width: 1, height: 1 });
  }

  /** @param {Item} item */
  #factsOf(item) {
    const blob = item.sent ?? item.blob;
    if (!blob) return "";
    const size = item.size ?? item.original;
    const shrunk = item.original && item.size && item.original.width !== item.size.width;
    return [
      ...(shrunk && item.original ? [`${pixels(item.original)} →`] : []),
      ...(size ? [`${pixels(size)} px ·`] : []),
      byteSize(blob.size),
    ].join(" ");
  }

  /** @param {Item} item */
  #tokensOf(item) {
    return item.size && this.#vision ? visualTokens(item.size, this.#vision.grid) : null;
  }

  #renderCost() {
    const line = byId("cost", HTMLParagraphElement);
    const known = this.#items.filter((item) => item.size && this.#vision);
    line.hidden = known.length === 0;
    const unseen = known.some((item) => this.#tokensOf(item) === null);
    const tokens = known.reduce((sum, item) => sum + (this.#tokensOf(item) ?? 0), 0);
    const count = tokens.toLocaleString("en");
    if (unseen) line.textContent = text("tooLong");
    else if (this.#items.length === 1) line.textContent = text("costOfOne", { tokens: count });
    else line.textContent = text("costOfMany", { pictures: this.#items.length, tokens: count });
  }

  /**
   * @param {Item} item
   * @param {number} index
   */
  #thumb(item, index) {
    const button = actionButton(() => this.#show(index));
    button.setAttribute("aria-label", text("pictureNumber", { number: index + 1, name: item.name }));
    button.setAttribute("aria-pressed", String(index === this.#shown));
    if (item.address) {
      const image = made("img", "");
      image.src = item.address;
      image.alt = "";
      button.append(image);
    } else button.append(made("span", "", "URL"));
    return listItem(button);
  }
}

/**
 * @param {File} file
 * @returns {Item}
 */
function itemOf(file) {
  const address = URL.createObjectURL(file);
  const empty = { original: null, size: null, sent: null, ready: Promise.resolve() };
  return { name: file.name, blob: file, url: "", address, ...empty };
}

/**
 * @param {string} url
 * @returns {Item}
 */
function itemElsewhere(url) {
  const name = decodeURI(new URL(url).pathname).split("/").pop() || hostOf(url);
  return { name, blob: null, url, address: "", original: null, size: null, sent: null, ready: Promise.resolve() };
}

/** @param {string} url */
function hostOf(url) {
  return new URL(url).host;
}

/** @param {Size} size */
function pixels({ width, height }) {
  return `${width} × ${height}`;
}

/**
 * @param {number} bytes
 * @returns {string}
 */
function byteSize(bytes) {
  const kilobytes = bytes / 1024;
  return kilobytes < 1024 ? `${Math.max(1, Math.round(kilobytes))} KB` : `${(kilobytes / 1024).toFixed(1)} MB`;
}
