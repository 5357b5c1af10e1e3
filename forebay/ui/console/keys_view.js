// @ts-check
/** API keys, and the limits in force. */

import { ask, field } from "./confirm.js";
import { ago, moment, NOTHING, plain } from "./format.js";
import { h } from "./html.js";
import { text, word } from "./i18n.js";
import { askForNewKey, showKeyOnce } from "./key_form.js";
import { limitRows, limitsTable, tenantsTable } from "./limits.js";
import { deed } from "./notes.js";
import { csvOfTable, part } from "./parts.js";
import { PolledView } from "./poll.js";
import { deeds, pill, Table } from "./table.js";

/** @typedef {import("./context.js").Context} Context */
/** @typedef {import("./types.js").ApiKey} ApiKey */
/** @typedef {import("./types.js").LimitsNow} LimitsNow */

const LOOK_MS = 5_000;

export class KeysView extends PolledView {
  #keys = keysTable((one) => void this.#rotate(one), (one, button) => void this.#revoke(one, button));
  #limits = limitsTable();
  #tenants = tenantsTable();

  /** @param {Context} context */
  constructor(context) {
    super(context, LOOK_MS);
    const create = h("button", { type: "button", class: "button primary", id: "new-key" }, text("keyNew"));
    create.addEventListener("click", () => void this.#create());
    this.element = h(
      "div",
      { class: "view" },
      this.poll.element,
      part(text("keys"), this.#keys.element, csvOfTable(this.#keys, "forebay-keys"), create),
      h("div", { class: "columns uneven" }, part(text("limits"), this.#limits.element, csvOfTable(this.#limits, "forebay-limits")), part(text("tenantsWaiting"), this.#tenants.element, csvOfTable(this.#tenants, "forebay-tenants"))),
    );
  }

  async look() {
    const { admin } = this.context;
    const [keys, limits] = await Promise.all([
      /** @type {Promise<{data: ApiKey[]}>} */ (admin.get("keys")),
      /** @type {Promise<LimitsNow>} */ (admin.get("limits")),
    ]);
    this.#keys.show(keys.data);
    this.#limits.show(limitRows(limits));
    this.#tenants.show(limits.tenants);
  }

  async #create() {
    const wanted = await askForNewKey();
    if (!wanted) return;
    const made = await deed(null, () => /** @type {Promise<ApiKey & {key: string}>} */ (this.context.admin.act("POST", "keys", wanted)), "");
    if (made) await showKeyOnce(made.key, made.label);
    await this.poll.start();
  }

  /** @param {ApiKey} key */
  async #rotate(key) {
    const hours = h("input", { type: "number", min: 0, max: 8_784, step: 1, value: 24, required: true });
    const sure = await ask({
      title: text("rotateTitle", { label: key.label }),
      detail: text("rotateDetail"),
      action: text("rotate"),
      fields: [field(text("overlapHours"), hours, text("overlapHint"))],
    });
    if (!sure) return;
    const path = `keys/${encodeURIComponent(key.id)}/rotate`;
    const body = { overlap_s: Number(hours.value) * 3_600 };
    const made = await deed(null, () => /** @type {Promise<{key: string}>} */ (this.context.admin.act("POST", path, body)), "");
    if (made) await showKeyOnce(made.key, key.label);
    await this.poll.start();
  }

  /** @param {ApiKey} key @param {HTMLButtonElement} button */
  async #revoke(key, button) {
    const sure = await ask({ title: text("revokeTitle", { label: key.label }), detail: text("revokeDetail"), action: text("revoke"), harm: true });
    if (!sure) return;
    await deed(button, () => this.context.admin.act("DELETE", `keys/${encodeURIComponent(key.id)}`), text("revoked", { label: key.label }));
    await this.poll.start();
  }
}

/**
 * @param {(key: ApiKey) => void} onRotate
 * @param {(key: ApiKey, button: HTMLButtonElement) => void} onRevoke
 */
function keysTable(onRotate, onRevoke) {
  const subject = (/** @type {ApiKey} */ one) => one.label;
  const good = (/** @type {ApiKey} */ one) => stateOf(one) === "good";
  /** @type {import("./table.js").Column<ApiKey>[]} */
  const columns = [
    { name: text("state"), make: pill((one) => ({ word: word("keyStates", stateOf(one)), tone: stateOf(one) === "good" ? "good" : "faint" })), raw: stateOf },
    { name: text("label"), words: (one) => one.label },
    { name: text("keyId"), words: (one) => one.id, kind: "code" },
    { name: text("tenant"), words: (one) => one.tenant },
    { name: text("scopes"), words: (one) => one.scopes.join(", "), tone: (one) => (one.scopes.includes("admin") ? "warn" : "") },
    { name: text("allowance"), words: (one) => allowanceWords(one), kind: "wide" },
    { name: text("made"), words: (one) => ago(one.created_at), kind: "number", raw: (one) => moment(one.created_at) },
    { name: text("expires"), words: (one) => moment(one.expires_at), kind: "number" },
    { name: text("oldUntil"), words: (one) => moment(one.old_key_until), kind: "number" },
    {
      name: text("deeds"),
      kind: "deeds",
      make: deeds([
        { name: text("rotate"), subject, fits: good, act: onRotate },
        { name: text("revoke"), subject, fits: good, harm: true, act: onRevoke },
      ]),
    },
  ];
  return new Table({ label: text("keys"), columns, keyOf: (one) => one.id, empty: text("noKeys") });
}

/** @param {ApiKey} key @returns {"good" | "revoked" | "expired"} */
function stateOf({ revoked_at: revoked, expires_at: expires }) {
  if (revoked) return "revoked";
  return expires && expires < Date.now() / 1000 ? "expired" : "good";
}

/** @param {ApiKey} key what it may have, where it has a bound of its own */
function allowanceWords({ allowance }) {
  const told = ["rate_per_s", "max_unfinished", "max_waiting", "tokens_per_minute", "tokens_per_day"];
  const words = told.filter((name) => allowance[name] !== null && allowance[name] !== undefined);
  return words.map((name) => word("allowances", name, { count: plain(allowance[name] ?? 0, 2) })).join(text("comma")) || NOTHING;
}
