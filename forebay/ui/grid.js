// @ts-check
/** What a picture becomes and costs, by the server's own arithmetic (`forebay/core/image_grid.py`). */

/**
 * What `/v1/models` tells of the numbers by which the served model sees.
 * @typedef {{patch_size: number, merge_size: number, temporal_patch_size: number,
 *   min_pixels: number, max_pixels: number}} Grid
 */
/** @typedef {{width: number, height: number}} Size in pixels */

/** One side of a picture may be this many times the other. */
const MOST_ASPECT = 200;

/**
 * Rounds as the server does: a half goes to the even neighbour.
 * @param {number} value not negative
 */
export function roundEven(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return rest < 0.5 ? floor : floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

/**
 * @param {Size} size
 * @param {number} side
 * @returns {Size} that of the stored picture, its longest side at most `side`
 */
export function storedSize({ width, height }, side) {
  const longest = Math.max(width, height);
  if (longest <= side) return { width, height };
  const scale = side / longest;
  return { width: Math.max(1, roundEven(width * scale)), height: Math.max(1, roundEven(height * scale)) };
}

/**
 * @param {Size} size
 * @param {Grid} grid
 * @returns {Size | null} what the model looks at; null: no such picture can be seen
 */
export function seenSize({ width, height }, grid) {
  const factor = grid.patch_size * grid.merge_size;
  const frames = grid.temporal_patch_size;
  if (height < factor || width < factor) {
    const scale = Math.max(factor / height, factor / width);
    [height, width] = [Math.trunc(height * scale), Math.trunc(width * scale)];
  }
  if (Math.max(height, width) / Math.min(height, width) > MOST_ASPECT) return null;
  const seen = { width: roundEven(width / factor) * factor, height: roundEven(height / factor) * factor };
  const pixels = frames * seen.height * seen.width;
  if (pixels > grid.max_pixels) {
    const beta = Math.sqrt((frames * height * width) / grid.max_pixels);
    const fit = (/** @type {number} */ side) => Math.max(factor, Math.floor(side / beta / factor) * factor);
    return { width: fit(width), height: fit(height) };
  }
  if (pixels < grid.min_pixels) {
    const beta = Math.sqrt(grid.min_pixels / (frames * height * width));
    const fit = (/** @type {number} */ side) => Math.ceil((side * beta) / factor) * factor;
    return { width: fit(width), height: fit(height) };
  }
  return seen;
}

/**
 * @param {Size} size
 * @param {Grid} grid
 * @returns {number | null} tokens of the language model that the picture takes; null: it cannot be seen
 */
export function visualTokens(size, grid) {
  const seen = seenSize(size, grid);
  if (!seen) return null;
  const factor = grid.patch_size * grid.merge_size;
  return (seen.width / factor) * (seen.height / factor);
}
