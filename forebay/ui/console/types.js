// @ts-check
/** The shapes that the server's administrative endpoints answer with; see /openapi.json. */

/** @typedef {{code: string, subject: string, value: number | null, limit: number | null}} Reason */
/** @typedef {{color: "green" | "yellow" | "red", reasons: Reason[]}} Light */
/** @typedef {{at: number, light: Light, values: Record<string, number | null>}} Point */
/** @typedef {"share" | "bytes" | "seconds" | "per_second" | "count" | "celsius" | "watts"} Unit */
/**
 * @typedef {{step_s: number, columns: string[], rows: (number | null)[][],
 *   units: Record<string, Unit>, thresholds: Record<string, number>}} Series
 */
/**
 * @typedef {{id: string, host: string, pid: number | null, state: string, leases: number | null,
 *   model: string | null, version: string | null, device: string | null,
 *   quantization: string | null, running: number | null, waiting: number | null,
 *   max_running: number | null, kv_use: number | null, answered: number | null,
 *   failed: number | null, memory_bytes: number | null, seen_at: number | null,
 *   started_at: number | null, ordered: string | null, stack: string | null, group: string}} Worker
 */
/** @typedef {{id: string, host: string, workers: number, wanted: number, seen_at: number}} Stack */
/** @typedef {{data: Worker[], stacks: Stack[]}} Fleet */
/**
 * @typedef {{stage: string, at: number, worker: string | null, attempt: number,
 *   why: string | null}} Step
 */
/**
 * @typedef {{id: string, state: string, tenant: string, model: string | null, priority: string,
 *   cost_tokens: number | null, created_at: number, started_at: number | null,
 *   finished_at: number | null, deliveries: number, worker: string | null,
 *   seconds: Record<string, number | null>, position: number | null, eta_seconds: number | null,
 *   reuse: string | null, usage: Record<string, number> | null,
 *   error: {code: string, message: string} | null}} Task
 */
/** @typedef {{data: Task[], next_after: string | null, partial: boolean}} TaskPage */
/** @typedef {Task & {timeline: Step[]}} TaskStory */
/**
 * @typedef {{rule: string, key: string, labels: Record<string, string>, state: string,
 *   value: number, since: number, silenced: boolean, told: Record<string, number>,
 *   severity: string | null, runbook: string | null, text: Record<string, string>}} Alert
 */
/**
 * @typedef {{silence_id: string, rule: string, labels: Record<string, string>, until_s: number,
 *   reason: string, by: string, made_s: number}} Silence
 */
/**
 * @typedef {{data: Alert[], silences: Silence[], channels: string[],
 *   rules: {name: string, for_s: number, severity: string, threshold: number | null,
 *     unit: string, runbook: string}[]}} AlertBoard
 */
/**
 * @typedef {{limits: Record<string, number | null>, load: Record<string, number | null>,
 *   tenants: {tenant: string, waiting: number, waiting_tokens: number}[]}} LimitsNow
 */
/** @typedef {Record<string, number | null>} Allowance */
/**
 * @typedef {{id: string, label: string, tenant: string, scopes: string[], created_at: number,
 *   expires_at: number | null, rotated_at: number | null, old_key_until: number | null,
 *   revoked_at: number | null, allowance: Allowance}} ApiKey
 */
/**
 * @typedef {{tasks: number, answered: number, empty: number, failed: number, lost: number,
 *   failed_share: number, first_token_p95_s: number | null, answer_p95_s: number | null}} CanaryFigures
 */
/** @typedef {{window_s: number, least: number, failed: number, slower: number, restarts: number}} CanaryTerms */
/**
 * @typedef {{share: number, taken: number | null, since: number | null, rolled_back: boolean,
 *   rollback: boolean, runs: Record<string, unknown> | null, workers: Record<"stable" | "canary", number>,
 *   figures: Record<"stable" | "canary", CanaryFigures>, terms: CanaryTerms}} CanaryNow
 */
/**
 * @typedef {{id: string, at: number, share: number, before: number, by: string, reason: string,
 *   figures?: Record<string, unknown>}} CanaryChange
 */
/** @typedef {{at: number, actor: string, action: string, target: string, from: string, outcome: string}} Deed */

/**
 * What is logged: `until` seconds since the epoch, then `configured` again.
 * @typedef {{level: string, until: number | null, by: string | null, configured: string}} LogLevel
 */

export {};
