// @ts-check
/** Asks what a new key may do, and shows a key this once. */

import { ask, field } from "./confirm.js";
import { h } from "./html.js";
import { text, word } from "./i18n.js";

const SCOPES = ["infer", "tasks", "admin"];
const DAY_S = 86_400;
/** Fields of the allowance that may be left empty: then the key has no bound of its own. */
const BOUNDS = ["rate_per_s", "max_unfinished", "tokens_per_minute", "tokens_per_day"];

/** @returns {Promise<Record<string, unknown> | null>} what `POST /v1/admin/keys` takes; null: left */
export async function askForNewKey() {
  const label = h("input", { type: "text", id: "key-label", required: true, maxlength: 100, autocomplete: "off" });
  const tenant = h("input", { type: "text", id: "key-tenant", value: "default", required: true, autocomplete: "off", spellcheck: "false" });
  const days = h("input", { type: "number", id: "key-days", min: 1, max: 36_500, step: 1 });
  const scopes = SCOPES.map((scope) => h("input", { type: "checkbox", value: scope, id: `scope-${scope}`, checked: scope !== "admin" }));
  const bounds = BOUNDS.map((name) => h("input", { type: "number", id: `key-${name}`, min: name === "rate_per_s" ? 0.01 : 1, step: name === "rate_per_s" ? 0.01 : 1 }));
  const fields = [
    field(text("label"), label, text("labelHint")),
    field(text("tenant"), tenant),
    h("fieldset", { class: "field checks" }, h("legend", {}, text("scopes")),
      ...scopes.map((one) => h("label", {}, one, h("span", {}, word("scopes", one.value))))),
    field(text("keyDays"), days, text("emptyNever")),
    h("div", { class: "field-pair" }, ...BOUNDS.map((name, at) => field(word("bounds", name), bounds[at]))),
  ];
  if (!(await ask({ title: text("keyNew"), action: text("keyMake"), fields }))) return null;
  const allowance = Object.fromEntries(BOUNDS.flatMap((name, at) => (bounds[at].value ? [[name, Number(bounds[at].value)]] : [])));
  return {
    label: label.value.trim(),
    tenant: tenant.value.trim(),
    scopes: scopes.filter((one) => one.checked).map((one) => one.value),
    expires_in_s: days.value ? Number(days.value) * DAY_S : null,
    allowance,
  };
}

/**
 * @param {string} key
 * @param {string} label
 */
export async function showKeyOnce(key, label) {
  const shown = h("input", { type: "text", class: "code", id: "new-key-text", readonly: true, value: key, "aria-label": text("apiKey") });
  const copy = h("button", { type: "button", class: "button quiet" }, text("copy"));
  shown.addEventListener("focus", () => shown.select());
  copy.addEventListener("click", () => {
    shown.select(); // without https there is no clipboard: the person copies what is selected
    void navigator.clipboard?.writeText(key).then(() => (copy.textContent = text("copied")));
  });
  await ask({
    title: text("keyOnceTitle", { label }),
    detail: text("keyOnceDetail"),
    action: text("keyKept"),
    fields: [h("div", { class: "once" }, shown, copy)],
    only: true,
  });
}
