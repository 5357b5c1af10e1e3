// @ts-check
/** The server's public administrative endpoints. Addresses are relative: a prefix may be in front. */

import { ApiError, asApiError, refusal } from "../api.js";

/** @typedef {import("./session.js").Session} Session */
/** @typedef {Record<string, string | number | boolean | null | undefined>} Query */

/** How long an answer may take. A push test waits for the receiver. */
const LOOK_MS = 10_000;
const DEED_MS = 40_000;
/** Refusals that no other request with this key would escape. */
const ENDS_SESSION = new Set(["unauthorized", "forbidden"]);

export class Admin {
  /** @param {Session} session */
  constructor(session) {
    this.session = session;
  }

  /**
   * @template T
   * @param {string} path under `v1/admin/`
   * @param {Query} [query] what is empty is left out
   * @returns {Promise<T>}
   */
  async get(path, query = {}) {
    const response = await this.#request(path + queryOf(query), { cache: "no-store" }, LOOK_MS);
    return response.json();
  }

  /**
   * @template T
   * @param {"POST" | "PUT" | "DELETE"} method
   * @param {string} path
   * @param {unknown} [body]
   * @returns {Promise<T>}
   */
  async act(method, path, body) {
    const json = body === undefined ? {} : { headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
    const response = await this.#request(path, { method, ...json }, DEED_MS);
    return response.json();
  }

  /**
   * @param {string} path
   * @param {Query} [query]
   * @returns {Promise<Blob>} the list as the server writes it in CSV
   */
  async csv(path, query = {}) {
    const response = await this.#request(path + queryOf({ ...query, format: "csv" }), { cache: "no-store" }, DEED_MS);
    return response.blob();
  }

  /**
   * @param {string} path
   * @param {AbortSignal} signal
   * @returns {Promise<Response>} whose body goes on until it is cut
   */
  open(path, signal) {
    return this.#request(path, { cache: "no-store", headers: { accept: "text/event-stream" }, signal }, 0);
  }

  /**
   * Tries a key that nobody has vouched for yet.
   * @param {string} key
   * @returns {Promise<void>} throws ApiError where it is no administrator's
   */
  async tryKey(key) {
    await send("now", { cache: "no-store" }, LOOK_MS, key);
  }

  /**
   * @param {string} path
   * @param {RequestInit} init
   * @param {number} limitMs 0 for none
   */
  async #request(path, init, limitMs) {
    const key = this.session.key;
    try {
      return await send(path, init, limitMs, key);
    } catch (error) {
      const refused = error instanceof ApiError && ENDS_SESSION.has(error.code);
      if (refused && key === this.session.key) this.session.end(error.code);
      throw error;
    }
  }
}

/**
 * @param {string} path
 * @param {RequestInit} init
 * @param {number} limitMs
 * @param {string} key
 * @returns {Promise<Response>} a success. Throws ApiError, or AbortError where `signal` was pulled.
 */
async function send(path, init, limitMs, key) {
  const headers = new Headers(init.headers);
  headers.set("authorization", `Bearer ${key}`);
  const signal = limitMs ? AbortSignal.timeout(limitMs) : init.signal;
  let response;
  try {
    response = await fetch(`v1/admin/${path}`, { ...init, headers, signal });
  } catch (error) {
    throw asApiError(error, "");
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

/** @param {Query} query */
function queryOf(query) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const words = new URLSearchParams(given.map(([name, value]) => [name, String(value)])).toString();
  return words && `?${words}`;
}
