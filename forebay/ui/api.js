// @ts-check
/** The server's public API, as any client uses it. Addresses are relative: a prefix may be in front. */

import { askForKey, currentKey } from "./key.js";

/** How long a small look at the server may take. An answer has no such limit: it waits its turn. */
const LOOK_MS = 8_000;

/**
 * @typedef {{file: string, question: string, answer: string, skill: string, language: string}} Sample
 */

/** A refusal or failure that the server explained, or that the network caused (`network`). */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {{code: string, status?: number, mend?: string, requestId?: string, retryAfter?: string}} facts
   */
  constructor(message, facts) {
    super(message);
    this.code = facts.code;
    this.status = facts.status ?? 0;
    this.mend = facts.mend ?? "";
    this.requestId = facts.requestId ?? "";
    this.retryAfter = facts.retryAfter ?? "";
  }
}

/** A picture to send: its bytes, or where the server finds it. @typedef {{blob: Blob | null, url: string}} Sendable */

/**
 * Puts one question into the queue.
 * @param {{model: string, question: string, pictures: readonly Sendable[], fresh: boolean, signal: AbortSignal}} ask
 *   `fresh`: no equal question's answer will do
 * @returns {Promise<{taskId: string, requestId: string}>}
 */
export async function submitTask({ model, question, pictures, fresh, signal }) {
  /** @type {Record<string, string>} */
  const headers = { "content-type": "application/json" };
  if (fresh) headers["cache-control"] = "no-store";
  const response = await request("v1/tasks", {
    method: "POST",
    headers,
    body: JSON.stringify({
      model,
      messages: [{ role: "user", content: await contentOf(question, pictures) }],
    }),
    signal,
  });
  const task = await response.json();
  return { taskId: String(task.id), requestId: response.headers.get("x-request-id") ?? "" };
}

/**
 * What the model says for or against a picture.
 * @typedef {{result: string, reasons: string[], confidence: number | null, tokens: number | null, requestId: string}} Opinion
 */

/**
 * Has a picture reviewed, by the template of that name.
 * @param {{model: string, prompt: string, picture: Sendable | null, signal: AbortSignal}} ask
 * @returns {Promise<Opinion>}
 */
export async function review({ model, prompt, picture, signal }) {
  const image = picture ? await addressOf(picture) : undefined;
  const response = await request("v1/multimodal/inference", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model, prompt, image, template: "review" }),
    signal,
  });
  const body = await response.json();
  return {
    result: String(body.result),
    reasons: Array.isArray(body.reasons) ? body.reasons.map(String) : [],
    confidence: typeof body.confidence === "number" ? body.confidence : null,
    tokens: typeof body.tokens_generated === "number" ? body.tokens_generated : null,
    requestId: response.headers.get("x-request-id") ?? "",
  };
}

/**
 * @param {string} taskId
 * @param {AbortSignal} signal
 * @returns {Promise<any>} the task's object
 */
export async function readTask(taskId, signal) {
  const response = await request(`v1/tasks/${encodeURIComponent(taskId)}`, { signal, cache: "no-store" });
  return response.json();
}

/**
 * Opens the events of a task that follow a place in its stream.
 * @param {string} taskId
 * @param {string} place the last id that was read, "" for the beginning
 * @param {AbortSignal} signal
 * @returns {Promise<Response>}
 */
export function openTask(taskId, place, signal) {
  /** @type {Record<string, string>} */
  const headers = { accept: "text/event-stream" };
  if (place) headers["last-event-id"] = place;
  return request(`v1/tasks/${encodeURIComponent(taskId)}/events`, { headers, signal, cache: "no-store" });
}

/** @param {string} taskId */
export async function cancelTask(taskId) {
  await request(`v1/tasks/${encodeURIComponent(taskId)}`, { method: "DELETE", keepalive: true });
}

/**
 * What the served model sees by, and what the server does with pictures.
 * @typedef {{image_side: number, max_images: number, max_image_pixels: number, fetches_urls: boolean,
 *   grid: import("./grid.js").Grid}} Vision
 * @typedef {{name: string, vision: Vision | null}} Served
 */

/**
 * @param {boolean} insists ask for a key even after a "not now"
 * @returns {Promise<Served>} the model that is served; its name is "" when none is listed
 */
export async function servedModel(insists) {
  const response = await request("v1/models", {}, { limitMs: LOOK_MS, insists });
  const first = (await response.json()).data?.[0];
  return { name: first?.id ?? "", vision: first?.vision ?? null };
}

/** @returns {Promise<"ready" | "waiting" | "gone">} whether questions are answered now */
export async function readiness() {
  try {
    const response = await fetch("ready", { cache: "no-store", signal: AbortSignal.timeout(LOOK_MS) });
    return response.ok ? "ready" : "waiting";
  } catch {
    return "gone"; // refused, or no answer in time: for a person the same fact
  }
}

/** @returns {Promise<Sample[]>} the sample questions, none where the server has none */
export async function listSamples() {
  const response = await fetch("samples.json");
  if (!response.ok) return [];
  const body = await response.json();
  return Array.isArray(body) ? body : [];
}

/**
 * @param {Sample} sample
 * @returns {string} the address of the sample's picture
 */
export function sampleAddress(sample) {
  return `samples/${encodeURIComponent(sample.file)}`;
}

/**
 * @param {Sample} sample
 * @returns {Promise<File>} the sample's picture
 */
export async function fetchSample(sample) {
  const response = await request(sampleAddress(sample), {});
  const blob = await response.blob();
  return new File([blob], sample.file, { type: blob.type });
}

/**
 * Where the server wants a key, the person is asked for one.
 * @param {string} path
 * @param {RequestInit} init
 * @param {{limitMs?: number, insists?: boolean}} [how] `insists`: ask for a key even after a "not now"
 * @returns {Promise<Response>} a response that is a success
 */
async function request(path, init, { limitMs = 0, insists = true } = {}) {
  const key = currentKey();
  const headers = new Headers(init.headers);
  if (key) headers.set("authorization", `Bearer ${key}`);
  const signal = limitMs ? AbortSignal.timeout(limitMs) : init.signal;
  let response;
  try {
    response = await fetch(path, { ...init, headers, signal });
  } catch (error) {
    throw asApiError(error, "");
  }
  if (response.ok) return response;
  if (response.status === 401 && (await askForKey(key, insists))) {
    return request(path, init, { limitMs, insists });
  }
  throw await refusal(response);
}

/**
 * @param {Response} response
 * @returns {Promise<ApiError>} what the server said against the request
 */
export async function refusal(response) {
  const text = await response.text();
  const facts = {
    status: response.status,
    requestId: response.headers.get("x-request-id") ?? "",
    retryAfter: response.headers.get("retry-after") ?? "",
  };
  try {
    return errorOf(JSON.parse(text), facts);
  } catch {
    return new ApiError(text.slice(0, 300) || response.statusText, { ...facts, code: `http_${response.status}` });
  }
}

/**
 * @param {any} body a parsed error body, OpenAI's form or the plain one
 * @param {{status?: number, requestId: string, retryAfter?: string}} facts
 */
export function errorOf(body, facts) {
  const error = body.error ?? body;
  if (typeof error === "string") return new ApiError(error, { ...facts, code: body.code ?? "error" });
  return new ApiError(String(error.message ?? ""), {
    ...facts,
    code: String(error.code ?? error.type ?? "error"),
    mend: error.mend,
  });
}

/**
 * @param {string} question
 * @param {readonly Sendable[]} pictures
 */
async function contentOf(question, pictures) {
  if (pictures.length === 0) return question;
  const addresses = await Promise.all(pictures.map(addressOf));
  return [
    ...addresses.map((url) => ({ type: "image_url", image_url: { url } })),
    { type: "text", text: question },
  ];
}

/** @param {Sendable} picture */
async function addressOf(picture) {
  return picture.blob ? dataUrl(picture.blob) : picture.url;
}

/**
 * @param {Blob} blob
 * @returns {Promise<string>}
 */
function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(new ApiError(String(reader.error?.message), { code: "invalid_image" }));
    reader.readAsDataURL(blob);
  });
}

/** @param {unknown} error */
export function isStop(error) {
  return error instanceof DOMException && error.name === "AbortError";
}

/**
 * @param {unknown} error
 * @param {string} requestId
 */
export function asApiError(error, requestId) {
  if (error instanceof ApiError || isStop(error)) return error;
  return new ApiError(error instanceof Error ? error.message : String(error), { code: "network", requestId });
}
