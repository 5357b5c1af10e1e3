// @ts-check
/** Where pictures come from: a file, a drop, a paste, an address. */

import { byId } from "./dom.js";
import { text } from "./i18n.js";

/** @typedef {{add: (files: File[], beside?: boolean) => void, addUrl: (url: string) => void}} Taker */

/** Hands every picture that a person brings to the tray. @param {Taker} tray */
export function followSources(tray) {
  followFile(tray);
  followDrag(tray);
  followUrl(tray);
  document.addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])].filter((file) => file.type.startsWith("image/"));
    if (files.length === 0) return;
    event.preventDefault();
    tray.add(files);
  });
}

/** @param {Taker} tray */
function followFile(tray) {
  const input = byId("file", HTMLInputElement);
  let beside = false;
  input.addEventListener("change", () => {
    tray.add([...(input.files ?? [])], beside);
    beside = false;
    input.value = ""; // the same file may be chosen again
  });
  input.addEventListener("cancel", () => (beside = false));
  byId("add", HTMLButtonElement).addEventListener("click", () => {
    beside = true;
    input.click();
  });
}

/** The whole window takes a drop; a miss by a hair must not navigate away from the page. @param {Taker} tray */
function followDrag(tray) {
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
    tray.add([...(event.dataTransfer?.files ?? [])]);
  });
}

/** @param {Taker} tray */
function followUrl(tray) {
  const row = byId("url-row", HTMLDivElement);
  const field = byId("url", HTMLInputElement);
  const wrong = byId("url-wrong", HTMLParagraphElement);
  const toggle = byId("by-url", HTMLButtonElement);
  const show = (/** @type {boolean} */ open) => {
    row.hidden = !open;
    toggle.setAttribute("aria-expanded", String(open));
    (open ? field : toggle).focus();
  };
  const take = () => {
    const url = webAddress(field.value.trim());
    wrong.hidden = url !== "";
    wrong.textContent = url ? "" : text("urlWrong");
    if (!url) return field.focus();
    tray.addUrl(url);
    field.value = "";
    show(false);
  };
  toggle.addEventListener("click", () => show(row.hidden));
  byId("url-take", HTMLButtonElement).addEventListener("click", take);
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== "Escape") return;
    event.preventDefault();
    event.stopPropagation();
    if (event.key === "Enter") take();
    else show(false);
  });
}

/**
 * @param {string} written
 * @returns {string} the address, "" where it is none of the web's
 */
function webAddress(written) {
  return /^https?:\/\//i.test(written) && URL.canParse(written) ? new URL(written).href : "";
}
