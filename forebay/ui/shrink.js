// @ts-check
/** Makes a picture as small as the server would before it is sent: the same pixels, fewer bytes. */

import { storedSize } from "./grid.js";

/** @typedef {import("./grid.js").Size} Size */
/** @typedef {{blob: Blob, size: Size}} Prepared `size`: of the picture as it is stored, upright */

/** What the server reads; anything else that the browser can show is written anew. */
const TAKEN = new Set(["image/jpeg", "image/png", "image/webp", "image/gif", "image/bmp"]);
/** A drawing stays a PNG up to this size: its edges stay sharp. A photograph is better a JPEG. */
const LARGEST_PNG = 1_500_000;
/** The server writes its own JPEG of it afterwards: a first loss would add to the second. */
const JPEG_QUALITY = 1;

/**
 * @param {Blob} file
 * @param {number} side longest that the server stores, in pixels; 0: not known, nothing is shrunk
 * @returns {Promise<Prepared | null>} null: the browser cannot read it, which the server will judge
 */
export async function prepare(file, side) {
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" }).catch(() => null);
  if (!bitmap) return null;
  try {
    const size = side ? storedSize(bitmap, side) : { width: bitmap.width, height: bitmap.height };
    const fits = size.width === bitmap.width && size.height === bitmap.height;
    if (fits && TAKEN.has(file.type)) return { blob: file, size };
    const smaller = await written(drawn(bitmap, size), file.type);
    return { blob: smaller.size < file.size || !TAKEN.has(file.type) ? smaller : file, size };
  } finally {
    bitmap.close();
  }
}

/**
 * @param {ImageBitmap} bitmap
 * @param {Size} size
 * @returns {HTMLCanvasElement} the picture on white, halved until it is near its size: no pixel is skipped
 */
function drawn(bitmap, size) {
  /** @type {CanvasImageSource} */
  let source = bitmap;
  let { width, height } = bitmap;
  while (width / 2 >= size.width && height / 2 >= size.height) {
    [width, height] = [Math.max(size.width, width >> 1), Math.max(size.height, height >> 1)];
    source = painted(source, width, height);
    if (width === size.width && height === size.height) return source;
  }
  return painted(source, size.width, size.height);
}

/**
 * @param {CanvasImageSource} source
 * @param {number} width
 * @param {number} height
 */
function painted(source, width, height) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const pen = canvas.getContext("2d");
  if (!pen) throw new Error("this browser has no canvas");
  pen.fillStyle = "#fff";
  pen.fillRect(0, 0, width, height);
  pen.imageSmoothingQuality = "high";
  pen.drawImage(source, 0, 0, width, height);
  return canvas;
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {string} type of the picture that it was
 * @returns {Promise<Blob>}
 */
async function written(canvas, type) {
  if (type !== "image/jpeg") {
    const png = await blobOf(canvas, "image/png");
    if (png.size <= LARGEST_PNG) return png;
  }
  return blobOf(canvas, "image/jpeg");
}

/**
 * @param {HTMLCanvasElement} canvas
 * @param {string} type
 * @returns {Promise<Blob>}
 */
export function blobOf(canvas, type) {
  return new Promise((resolve, reject) => {
    const take = (/** @type {Blob | null} */ blob) =>
      blob ? resolve(blob) : reject(new Error("the picture could not be written anew"));
    canvas.toBlob(take, type, JPEG_QUALITY);
  });
}
