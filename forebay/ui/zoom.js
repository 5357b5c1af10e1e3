// @ts-check
/** A picture seen closely: by wheel, fingers, keys or buttons. */

import { drawBoxes } from "./boxes.js";
import { byId, drawing } from "./dom.js";

/** @typedef {import("./boxes.js").Box} Box */
/** @typedef {{address: string, size: import("./grid.js").Size | null, name: string}} Shown */

const STEP = 1.4;
const MOST = 16;
const MOVE = 80;
const WHEEL = 500;

export class Zoom {
  #dialog = byId("zoom-dialog", HTMLDialogElement);
  #stage = byId("zoom-stage", HTMLDivElement);
  #content = byId("zoom-content", HTMLDivElement);
  #image = byId("zoom-image", HTMLImageElement);
  #boxes = drawing("#zoom-boxes");
  #scale = 1;
  #x = 0;
  #y = 0;
  /** Fingers or the mouse upon the stage. @type {Map<number, {x: number, y: number}>} */
  #touching = new Map();

  constructor() {
    byId("zoom-in", HTMLButtonElement).addEventListener("click", () => this.#by(STEP));
    byId("zoom-out", HTMLButtonElement).addEventListener("click", () => this.#by(1 / STEP));
    byId("zoom-fit", HTMLButtonElement).addEventListener("click", () => this.#fit());
    byId("zoom-close", HTMLButtonElement).addEventListener("click", () => this.#dialog.close());
    this.#dialog.addEventListener("keydown", (event) => this.#key(event));
    this.#stage.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.#by(Math.exp(-event.deltaY / WHEEL), event.clientX, event.clientY);
    }, { passive: false });
    this.#stage.addEventListener("dblclick", (event) => {
      if (this.#scale > 1) this.#fit();
      else this.#by(STEP ** 3, event.clientX, event.clientY);
    });
    this.#stage.addEventListener("pointerdown", (event) => {
      this.#stage.setPointerCapture(event.pointerId);
      this.#touching.set(event.pointerId, { x: event.clientX, y: event.clientY });
    });
    this.#stage.addEventListener("pointermove", (event) => this.#drag(event));
    for (const end of /** @type {const} */ (["pointerup", "pointercancel"])) {
      this.#stage.addEventListener(end, (event) => this.#touching.delete(event.pointerId));
    }
  }

  /**
   * @param {Shown} shown
   * @param {readonly Box[]} boxes
   */
  open(shown, boxes) {
    this.#image.src = shown.address;
    this.#image.alt = shown.name;
    drawBoxes(this.#boxes, shown.size ? boxes : [], shown.size ?? { width: 1, height: 1 });
    this.#dialog.showModal();
    this.#stage.focus();
    this.#fit();
  }

  #fit() {
    [this.#scale, this.#x, this.#y] = [1, 0, 0];
    this.#place();
  }

  /**
   * @param {number} factor
   * @param {number} [atX] the point that stays where it is; without one, the middle
   * @param {number} [atY]
   */
  #by(factor, atX, atY) {
    const frame = this.#stage.getBoundingClientRect();
    const x = atX === undefined ? 0 : atX - frame.left - frame.width / 2;
    const y = atY === undefined ? 0 : atY - frame.top - frame.height / 2;
    const scale = Math.min(MOST, Math.max(1, this.#scale * factor));
    const real = scale / this.#scale;
    this.#x = x - (x - this.#x) * real;
    this.#y = y - (y - this.#y) * real;
    this.#scale = scale;
    this.#place();
  }

  /** @param {PointerEvent} event */
  #drag(event) {
    const before = this.#touching.get(event.pointerId);
    if (!before) return;
    const now = { x: event.clientX, y: event.clientY };
    const other = [...this.#touching].find(([id]) => id !== event.pointerId)?.[1];
    this.#touching.set(event.pointerId, now);
    if (other) {
      const grown = distance(now, other) / Math.max(1, distance(before, other));
      this.#by(grown, (now.x + other.x) / 2, (now.y + other.y) / 2);
    } else this.#move(now.x - before.x, now.y - before.y);
  }

  /**
   * @param {number} x
   * @param {number} y
   */
  #move(x, y) {
    this.#x += x;
    this.#y += y;
    this.#place();
  }

  /** @param {KeyboardEvent} event */
  #key(event) {
    /** @type {Record<string, () => void>} */
    const deeds = {
      "+": () => this.#by(STEP),
      "=": () => this.#by(STEP),
      "-": () => this.#by(1 / STEP),
      0: () => this.#fit(),
      ArrowLeft: () => this.#move(MOVE, 0),
      ArrowRight: () => this.#move(-MOVE, 0),
      ArrowUp: () => this.#move(0, MOVE),
      ArrowDown: () => this.#move(0, -MOVE),
    };
    const deed = deeds[event.key];
    if (!deed || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    deed();
  }

  /** The picture never leaves its frame. */
  #place() {
    const roomX = (this.#stage.clientWidth * (this.#scale - 1)) / 2;
    const roomY = (this.#stage.clientHeight * (this.#scale - 1)) / 2;
    this.#x = Math.min(roomX, Math.max(-roomX, this.#x));
    this.#y = Math.min(roomY, Math.max(-roomY, this.#y));
    this.#content.style.transform = `translate(${this.#x}px, ${this.#y}px) scale(${this.#scale})`;
    byId("zoom-scale", HTMLElement).textContent = `${Math.round(100 * this.#scale)}%`;
  }
}

/**
 * @param {{x: number, y: number}} one
 * @param {{x: number, y: number}} other
 */
function distance(one, other) {
  return Math.hypot(one.x - other.x, one.y - other.y);
}
