// @ts-check
/** Questions and answers of the past, in this browser's IndexedDB: so many, and no more. */

/** @typedef {import("./answer.js").Outcome} Outcome */
/** @typedef {import("./api.js").Opinion} Opinion */
/** What a person decided upon the model's opinion. @typedef {{decision: "approve" | "reject", note: string, at: number}} Verdict */
/**
 * `taskId`: while `open`, where its answer goes on.
 * @typedef {{id: string, kind: "ask" | "review", model: string, question: string,
 *   pictures: import("./tray.js").Sent[], open: boolean, taskId: string, outcome: Outcome,
 *   opinion: Opinion | null, verdict: Verdict | null}} Entry
 */

const DATABASE = "forebay";
const STORE = "entries";
const MOST = 100;
const MOST_BYTES = 64 * 2 ** 20;

export class Entries {
  /** @type {Promise<IDBDatabase> | null} */
  #opening = null;

  /**
   * Keeps an entry, instead of one of its id; the oldest make room.
   * @param {Entry} entry
   */
  async put(entry) {
    await this.#with("readwrite", (store) => store.put(entry));
    await this.#prune();
  }

  /**
   * @param {string} id
   * @returns {Promise<Entry | null>}
   */
  async get(id) {
    return (await this.#with("readonly", (store) => store.get(id))) ?? null;
  }

  /** @returns {Promise<Entry[]>} the newest first; none where the browser keeps nothing */
  async list() {
    /** @type {Entry[]} */
    const found = (await this.#with("readonly", (store) => store.getAll())) ?? [];
    return found.sort((a, b) => b.outcome.askedAt - a.outcome.askedAt);
  }

  /** @param {string} id */
  async remove(id) {
    await this.#with("readwrite", (store) => store.delete(id));
  }

  async clear() {
    await this.#with("readwrite", (store) => store.clear());
  }

  async #prune() {
    let bytes = 0;
    for (const [index, entry] of (await this.list()).entries()) {
      bytes += bytesOf(entry);
      if (index >= MOST || (index > 0 && bytes > MOST_BYTES)) await this.remove(entry.id);
    }
  }

  /**
   * @param {IDBTransactionMode} mode
   * @param {(store: IDBObjectStore) => IDBRequest} act
   * @returns {Promise<any>} its result; undefined where the browser keeps nothing
   */
  async #with(mode, act) {
    try {
      this.#opening ??= opened();
      const database = await this.#opening;
      return await resultOf(act(database.transaction(STORE, mode).objectStore(STORE)));
    } catch (error) {
      console.info("no history:", error); // a private window, or no room: the page works on
      return undefined;
    }
  }
}

/** @returns {Promise<IDBDatabase>} */
function opened() {
  const opening = indexedDB.open(DATABASE, 1);
  opening.onupgradeneeded = () => opening.result.createObjectStore(STORE, { keyPath: "id" });
  return resultOf(opening);
}

/**
 * @template T
 * @param {IDBRequest<T>} request
 * @returns {Promise<T>}
 */
function resultOf(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

/** @param {Entry} entry */
function bytesOf(entry) {
  const pictures = entry.pictures.reduce((sum, picture) => sum + (picture.blob?.size ?? 0), 0);
  return pictures + 2 * (entry.question.length + entry.outcome.text.length);
}
