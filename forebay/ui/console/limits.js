// @ts-check
/** The limits in force beside the load they bound, and which tenants wait. */

import { NOTHING, plain, withUnit } from "./format.js";
import { text, word } from "./i18n.js";
import { bar, Table } from "./table.js";

/** @typedef {import("./types.js").LimitsNow} LimitsNow */
/** @typedef {LimitsNow["tenants"][number]} TenantLoad */
/** @typedef {{name: string, limit: number | null, load: number | null}} LimitRow */

/** Which load a limit bounds. */
/** @type {Record<string, string>} */
const BOUNDED = { max_waiting: "waiting", max_waiting_tokens: "waiting_tokens", max_inflight_bytes: "inflight_bytes" };

/** @param {LimitsNow} now @returns {LimitRow[]} */
export function limitRows({ limits, load }) {
  return Object.entries(limits).map(([name, limit]) => ({ name, limit, load: load[BOUNDED[name] ?? ""] ?? null }));
}

export function limitsTable() {
  /** @type {import("./table.js").Column<LimitRow>[]} */
  const columns = [
    { name: text("limit"), words: (one) => word("limits", one.name) },
    { name: text("setting"), words: (one) => one.name, kind: "code" },
    { name: text("atMost"), words: (one) => amount(one.name, one.limit), kind: "number" },
    {
      name: text("now"),
      kind: "number",
      make: bar((one) => (one.load !== null && one.limit ? one.load / one.limit : null), (one) => amount(one.name, one.load)),
      raw: (one) => one.load,
    },
  ];
  return new Table({ label: text("limits"), columns, keyOf: (one) => one.name, empty: "" });
}

export function tenantsTable() {
  /** @type {import("./table.js").Column<TenantLoad>[]} */
  const columns = [
    { name: text("tenant"), words: (one) => one.tenant, kind: "wide" },
    { name: text("tasksWaiting"), words: (one) => plain(one.waiting), kind: "number" },
    { name: text("tokens"), words: (one) => plain(one.waiting_tokens), kind: "number" },
  ];
  return new Table({ label: text("tenantsWaiting"), columns, keyOf: (one) => one.tenant, empty: text("nobodyWaits") });
}

/** @param {string} name @param {number | null} value */
function amount(name, value) {
  if (value === null) return NOTHING;
  if (name.endsWith("_bytes")) return withUnit(value, "bytes");
  if (name.endsWith("_per_s")) return withUnit(value, "per_second");
  if (name.endsWith("_s")) return withUnit(value, "seconds");
  return plain(value, 2);
}
