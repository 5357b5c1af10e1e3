// @ts-check
/** One question's way from the queue to its answer, whatever is interrupted in between. */

import { ApiError, asApiError, cancelTask, errorOf, isStop, openTask, readTask } from "./api.js";
import { readEvents } from "./sse.js";

/**
 * @typedef {{kind: "open", requestId: string}
 *   | {kind: "place", ahead: number, etaSeconds: number | null}
 *   | {kind: "started"}
 *   | {kind: "read", place: string}
 *   | {kind: "text", text: string}
 *   | {kind: "restart"}
 *   | {kind: "finish", reason: string, reuse: "cached" | "joined" | null}
 *   | {kind: "usage", promptTokens: number | null, answerTokens: number}} AnswerEvent
 */

/** Tries to come back in a row before it is given up; the pause between them grows to the longest. */
const MOST_TRIES = 8;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 5_000;

/**
 * Follows a task to its end. After an interruption it comes back by the last id that it has read.
 * @param {string} taskId
 * @param {string} requestId
 * @param {AbortSignal} signal
 * @param {string} place the last id that was read before, "" for the beginning
 * @returns {AsyncGenerator<AnswerEvent, void, void>}
 */
export async function* followTask(taskId, requestId, signal, place) {
  let pauseMs = FIRST_PAUSE_MS;
  for (let tries = 0; tries < MOST_TRIES; tries++) {
    try {
      const response = await openTask(taskId, place, signal);
      if (response.status === 204) {
        yield* endOf(await readTask(taskId, signal)); // all was read before, but for the reading's end
        return;
      }
      if (!response.body) break;
      for await (const event of readEvents(response.body)) {
        tries = 0;
        pauseMs = FIRST_PAUSE_MS;
        yield* factsOf(event.event, JSON.parse(event.data), requestId);
        if (event.id) yield { kind: "read", place: (place = event.id) };
        if (event.event === "done") return;
      }
    } catch (error) {
      if (isFinal(error)) throw asApiError(error, requestId);
    }
    await pause(pauseMs, signal);
    pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS);
  }
  throw new ApiError("the connection ended early", { code: "network", requestId });
}

/**
 * Ends a task that nobody wants any more. One that has ended meanwhile is as good.
 * @param {string} taskId
 */
export async function dropTask(taskId) {
  await cancelTask(taskId).catch((error) => console.info("not cancelled:", error));
}

/**
 * @param {string} name of the event
 * @param {any} content
 * @param {string} requestId
 * @returns {Generator<AnswerEvent, void, void>}
 */
function* factsOf(name, content, requestId) {
  if (name === "queued") yield { kind: "place", ahead: content.tasks_ahead ?? 0, etaSeconds: content.eta_seconds };
  else if (name === "started") yield { kind: "started" };
  else if (name === "delta") yield { kind: "text", text: content.text };
  else if (name === "restart") yield { kind: "restart" };
  else if (name === "error" || name === "cancelled") throw errorOf(content, { requestId, status: 200 });
  else if (name === "done") yield* endOf(content);
}

/**
 * @param {any} task
 * @returns {Generator<AnswerEvent, void, void>}
 */
function* endOf(task) {
  yield { kind: "finish", reason: task.output?.[0]?.finish_reason ?? "stop", reuse: task.reuse ?? null };
  if (!task.usage) return;
  const { prompt_tokens: promptTokens, completion_tokens: answerTokens } = task.usage;
  yield { kind: "usage", promptTokens, answerTokens };
}

/**
 * Whether coming back would not help: the person stopped it, or the server said so.
 * @param {unknown} error
 */
function isFinal(error) {
  if (isStop(error)) return true;
  return error instanceof ApiError && error.status > 0 && error.status < 500;
}

/**
 * @param {number} ms
 * @param {AbortSignal} signal
 */
function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, { once: true });
  });
}
