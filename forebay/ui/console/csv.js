// @ts-check
/** Tables as CSV files. */

/**
 * @param {string[]} columns
 * @param {unknown[][]} rows
 * @returns {string} RFC 4180
 */
export function toCsv(columns, rows) {
  return [columns, ...rows].map((row) => row.map(field).join(",")).join("\r\n") + "\r\n";
}

/** @param {unknown} value */
function field(value) {
  const raw = value === null || value === undefined ? "" : String(value);
  // a spreadsheet would run a text that begins so as a formula; a number may begin with a minus
  const words = /^[=+\-@\t\r]/.test(raw) && !Number.isFinite(Number(raw)) ? `'${raw}` : raw;
  return /[",\r\n]/.test(words) ? `"${words.replaceAll('"', '""')}"` : words;
}

/**
 * Hands a file to the person.
 * @param {Blob | string} content
 * @param {string} name without the ending
 */
export function saveCsv(content, name) {
  const blob = typeof content === "string" ? new Blob(["\uFEFF", content], { type: "text/csv" }) : content;
  const address = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = address;
  link.download = `${name}-${new Date().toISOString().slice(0, 19).replaceAll(":", "")}.csv`;
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10_000); // the download has begun by then
}
