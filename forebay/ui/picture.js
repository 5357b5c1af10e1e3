// @ts-check
/** The picture to ask about: chosen, dropped or pasted, shown, removed. */

import { byId } from "./dom.js";

/** @typedef {(picture: File | null, source: "person" | "sample") => void} PictureListener */

export class Picture {
  #drop = byId("drop", HTMLDivElement);
  #input = byId("file", HTMLInputElement);
  #figure = byId("preview", HTMLElement);
  #image = byId("preview-image", HTMLImageElement);
  #name = byId("preview-name", HTMLSpanElement);
  #facts = byId("preview-facts", HTMLSpanElement);
  #remove = byId("remove", HTMLButtonElement);
  #address = "";
  /** @type {File | null} */
  #file = null;
  #listener;

  /** @param {PictureListener} listener told of every change */
  constructor(listener) {
    this.#listener = listener;
    this.#input.addEventListener("change", () => this.#take(this.#input.files?.[0]));
    this.#image.addEventListener("load", () => this.#describe());
    this.#remove.addEventListener("click", () => {
      this.set(null, "person");
      this.#input.focus();
    });
    this.#followDrag();
    document.addEventListener("paste", (event) => {
      const file = [...(event.clipboardData?.files ?? [])].find(isPicture);
      if (!file) return;
      event.preventDefault();
      this.#take(file);
    });
  }

  /** @returns {File | null} */
  get file() {
    return this.#file;
  }

  /**
   * @param {File | null} file
   * @param {"person" | "sample"} source
   */
  set(file, source) {
    if (this.#address) URL.revokeObjectURL(this.#address);
    this.#file = file;
    this.#address = file ? URL.createObjectURL(file) : "";
    this.#drop.dataset.filled = String(file !== null);
    this.#figure.hidden = file === null;
    this.#name.textContent = file?.name ?? "";
    this.#facts.textContent = file ? byteSize(file.size) : "";
    if (file) {
      this.#image.src = this.#address;
      this.#image.alt = file.name;
    } else {
      this.#image.removeAttribute("src");
      this.#input.value = "";
    }
    this.#listener(file, source);
  }

  /** @param {File | undefined} file */
  #take(file) {
    if (file) this.set(file, "person");
  }

  #describe() {
    const { naturalWidth: width, naturalHeight: height } = this.#image;
    if (this.#file) this.#facts.textContent = `${width} × ${height} px · ${byteSize(this.#file.size)}`;
  }

  /** The whole window takes a drop; a miss by a hair must not navigate away from the page. */
  #followDrag() {
    let depth = 0;
    const show = () => (document.body.dataset.dragging = String(depth > 0));
    addEventListener("dragenter", (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      depth += 1;
      show();
    });
    addEventListener("dragleave", () => {
      depth = Math.max(0, depth - 1);
      show();
    });
    addEventListener("dragover", (event) => event.preventDefault());
    addEventListener("drop", (event) => {
      event.preventDefault();
      depth = 0;
      show();
      this.#take(event.dataTransfer?.files[0]);
    });
  }
}

/** @param {File} file */
function isPicture(file) {
  return file.type.startsWith("image/");
}

/**
 * @param {number} bytes
 * @returns {string}
 */
function byteSize(bytes) {
  const kilobytes = bytes / 1024;
  return kilobytes < 1024 ? `${Math.max(1, Math.round(kilobytes))} KB` : `${(kilobytes / 1024).toFixed(1)} MB`;
}
