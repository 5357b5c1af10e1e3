// @ts-check
/** Which charts there are: every key that the server tells of is on one of them. */

/** @typedef {import("./i18n.js").TextKey} TextKey */
/** @typedef {import("./types.js").Unit} Unit */
/**
 * @typedef {object} PanelPlan
 * @property {string} id
 * @property {string[]} keys the series, in the order of their colours
 * @property {number} [top] the scale's least upper end, such as 1 for shares
 * @property {boolean} [device] a machine may lack what it measures: then there is no chart
 * @property {string} [beside] a key whose newest value stands beside the title
 */

/** @type {{group: TextKey, panels: PanelPlan[]}[]} */
export const GROUPS = [
  {
    group: "groupQueue",
    panels: [
      { id: "queue_length", keys: ["queue_length"], top: 4 },
      { id: "oldest_age_s", keys: ["oldest_age_s"], top: 1 },
      { id: "token_backlog", keys: ["token_backlog"], top: 100 },
      { id: "shed_rate", keys: ["shed_rate"], top: 1 },
    ],
  },
  {
    group: "groupAnswers",
    panels: [
      { id: "requests", keys: ["requests_rate", "errors_rate"], top: 1 },
      { id: "ttft", keys: ["ttft_p50_s", "ttft_p95_s", "ttft_p99_s"], top: 0.1 },
      { id: "tpot", keys: ["tpot_p50_s", "tpot_p95_s", "tpot_p99_s"], top: 0.01 },
      { id: "latency", keys: ["latency_p50_s", "latency_p95_s", "latency_p99_s"], top: 0.1 },
    ],
  },
  {
    group: "groupEngine",
    panels: [
      { id: "batch_occupancy", keys: ["batch_occupancy"], top: 1 },
      { id: "kv_use", keys: ["kv_use"], top: 1 },
      { id: "caches", keys: ["prefix_hits", "encoder_hits"], top: 1 },
      { id: "working", keys: ["running", "workers"], top: 4 },
    ],
  },
  {
    group: "groupMachines",
    panels: [
      { id: "gpu_use", keys: ["gpu_use"], device: true, top: 1 },
      { id: "gpu_memory", keys: ["gpu_memory_bytes"], device: true, beside: "gpu_memory_share", top: 1e9 },
      { id: "gpu_temperature_c", keys: ["gpu_temperature_c"], device: true, top: 60 },
      { id: "gpu_power_w", keys: ["gpu_power_w"], device: true, top: 50 },
      { id: "cpu", keys: ["cpu"], top: 1 },
      { id: "memory", keys: ["memory"], top: 1 },
      { id: "disk", keys: ["disk"], top: 1 },
    ],
  },
];

/** Every key in the order of the charts, for the table. */
export const KEYS = GROUPS.flatMap(({ panels }) =>
  panels.flatMap(({ keys, beside }) => (beside ? [...keys, beside] : keys)),
);

/** @type {[string, Unit][]} */
const ENDINGS = [["_bytes", "bytes"], ["_s", "seconds"], ["_rate", "per_second"], ["_c", "celsius"], ["_w", "watts"]];
const COUNTS = new Set(["queue_length", "token_backlog", "running", "workers"]);

/**
 * @param {string} key
 * @returns {Unit} of a series, before the server has told of it
 */
export function unitOf(key) {
  const found = ENDINGS.find(([ending]) => key.endsWith(ending));
  return found ? found[1] : COUNTS.has(key) ? "count" : "share";
}

/** A limit that is far above what is measured is told, and not drawn: it would flatten the line. */
export const LIMIT_IN_SIGHT = 0.2;
