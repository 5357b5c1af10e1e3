// @ts-check
/** Asks what is to be silent, for how long, and why. */

import { ask, durations, field } from "./confirm.js";
import { h } from "./html.js";
import { text, word } from "./i18n.js";
import { deed } from "./notes.js";

/** @typedef {import("./admin.js").Admin} Admin */

const DURATIONS_S = [900, 3_600, 14_400, 86_400, 604_800];
const FIRST_S = 3_600;

/**
 * @param {Admin} admin
 * @param {string[]} rules the names there are
 * @param {{rule: string, labels: Record<string, string>}} about "" for every rule
 * @returns {Promise<boolean>} whether there is one more silence
 */
export async function silence(admin, rules, { rule, labels }) {
  const rulesField = h("select", { id: "silence-rule" }, h("option", { value: "" }, text("everyRule")),
    ...rules.map((name) => h("option", { value: name, selected: name === rule }, word("alerts", name))));
  const labelsField = h("input", { type: "text", id: "silence-labels", value: writeLabels(labels), autocomplete: "off", spellcheck: "false", placeholder: "gpu=0" });
  const forField = durations("silence-for", DURATIONS_S, FIRST_S);
  const reasonField = h("input", { type: "text", id: "silence-reason", maxlength: 200, autocomplete: "off" });
  const fields = [
    field(text("rule"), rulesField),
    field(text("labels"), labelsField, text("labelsHint")),
    field(text("duration"), forField),
    field(text("reason"), reasonField),
  ];
  if (!(await ask({ title: text("silenceTitle"), detail: text("silenceDetail"), action: text("silence"), fields }))) return false;
  const body = { rule: rulesField.value, labels: readLabels(labelsField.value), for_s: Number(forField.value), reason: reasonField.value };
  const made = await deed(null, () => admin.act("POST", "alerts/silences", body), text("silenced"));
  return made !== null;
}

/** @param {Record<string, string>} labels */
export function writeLabels(labels) {
  return Object.entries(labels).map(([name, value]) => `${name}=${value}`).join(", ");
}

/** @param {string} words "gpu=0, host=a" */
function readLabels(words) {
  const pairs = words.split(",").map((one) => one.trim()).filter(Boolean);
  return Object.fromEntries(pairs.map((one) => {
    const [name, ...value] = one.split("=");
    return [name.trim(), value.join("=").trim()];
  }));
}
