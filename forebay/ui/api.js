// @ts-check
/** The server's public API, as any client uses it. Addresses are relative: a prefix may be in front. */

import { readEvents } from "./sse.js";

/** How long a small look at the server may take. An answer has no such limit: it waits its turn. */
const LOOK_MS = 8_000;

/**
 * @typedef {{kind: "open", requestId: string}
 *   | {kind: "text", text: string}
 *   | {kind: "finish", reason: string}
 *   | {kind: "usage", promptTokens: number, answerTokens: number}} AnswerEvent
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

/**
 * Asks one question and yields what comes back.
 * @param {{model: string, question: string, image: Blob | null, signal: AbortSignal}} ask
 * @returns {AsyncGenerator<AnswerEvent, void, void>}
 */
export async function* askQuestion({ model, question, image, signal }) {
  const response = await request("v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json", accept: "text/event-stream" },
    body: JSON.stringify({
      model,
      stream: true,
      stream_options: { include_usage: true },
      messages: [{ role: "user", content: await contentOf(question, image) }],
    }),
    signal,
  });
  const requestId = response.headers.get("x-request-id") ?? "";
  yield { kind: "open", requestId };
  if (!response.body) throw new ApiError("empty response", { code: "network", requestId });
  let finished = false;
  try {
    for await (const event of readEvents(response.body)) {
      if (event.data === "[DONE]") return;
      for (const fact of readChunk(JSON.parse(event.data), requestId)) {
        finished ||= fact.kind === "finish";
        yield fact;
      }
    }
  } catch (error) {
    throw asApiError(error, requestId);
  }
  if (!finished) throw new ApiError("the connection ended early", { code: "network", requestId });
}

/** @returns {Promise<string>} the name of the model that is served, or "" when none is listed */
export async function modelName() {
  const response = await request("v1/models", { signal: AbortSignal.timeout(LOOK_MS) });
  const body = await response.json();
  return body.data?.[0]?.id ?? "";
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
 * @param {string} path
 * @param {RequestInit} init
 * @returns {Promise<Response>} a response that is a success
 */
async function request(path, init) {
  let response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    throw asApiError(error, "");
  }
  if (response.ok) return response;
  throw await refusal(response);
}

/**
 * @param {Response} response
 * @returns {Promise<ApiError>} what the server said against the request
 */
async function refusal(response) {
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
function errorOf(body, facts) {
  const error = body.error ?? body;
  if (typeof error === "string") return new ApiError(error, { ...facts, code: body.code ?? "error" });
  return new ApiError(String(error.message ?? ""), {
    ...facts,
    code: String(error.code ?? error.type ?? "error"),
    mend: error.mend,
  });
}

/**
 * @param {any} chunk one `chat.completion.chunk`
 * @param {string} requestId
 * @returns {AnswerEvent[]}
 */
function readChunk(chunk, requestId) {
  if (chunk.error) throw errorOf(chunk, { requestId });
  /** @type {AnswerEvent[]} */
  const facts = [];
  const choice = chunk.choices?.[0];
  if (choice?.delta?.content) facts.push({ kind: "text", text: choice.delta.content });
  if (choice?.finish_reason) facts.push({ kind: "finish", reason: choice.finish_reason });
  if (chunk.usage) {
    const { prompt_tokens: promptTokens, completion_tokens: answerTokens } = chunk.usage;
    facts.push({ kind: "usage", promptTokens, answerTokens });
  }
  return facts;
}

/**
 * @param {string} question
 * @param {Blob | null} image
 */
async function contentOf(question, image) {
  if (!image) return question;
  return [
    { type: "image_url", image_url: { url: await dataUrl(image) } },
    { type: "text", text: question },
  ];
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
function isStop(error) {
  return error instanceof DOMException && error.name === "AbortError";
}

/**
 * @param {unknown} error
 * @param {string} requestId
 */
function asApiError(error, requestId) {
  if (error instanceof ApiError || isStop(error)) return error;
  return new ApiError(error instanceof Error ? error.message : String(error), { code: "network", requestId });
}
