// @ts-check
/** Questions and answers as files: JSON with everything, Markdown to read. */

/** @typedef {import("./entries.js").Entry} Entry */

/**
 * @param {readonly Entry[]} entries
 * @returns {string} everything but the pictures' bytes; times as ISO 8601, durations in seconds
 */
export function asJson(entries) {
  return `${JSON.stringify(entries.map(plain), null, 2)}\n`;
}

/** @param {Entry} entry */
function plain({ kind, model, question, pictures, outcome, opinion, verdict }) {
  const { state, text, askedAt, firstAt, endedAt, usage, reuse, requestId, error } = outcome;
  return {
    kind,
    asked_at: new Date(askedAt).toISOString(),
    model,
    question,
    pictures: pictures.map(({ name, url, blob }) => ({ name, url: url || null, bytes: blob?.size ?? null })),
    state,
    answer: text,
    first_token_seconds: firstAt ? (firstAt - askedAt) / 1000 : null,
    seconds: endedAt ? (endedAt - askedAt) / 1000 : null,
    prompt_tokens: usage?.promptTokens ?? null,
    completion_tokens: usage?.answerTokens ?? null,
    reuse,
    request_id: requestId || null,
    error: error && { code: error.code, message: error.message },
    review: opinion && { result: opinion.result, reasons: opinion.reasons, confidence: opinion.confidence },
    verdict: verdict && { decision: verdict.decision, note: verdict.note, at: new Date(verdict.at).toISOString() },
  };
}

/**
 * @param {readonly Entry[]} entries
 * @returns {string}
 */
export function asMarkdown(entries) {
  return entries.map(section).join("\n---\n\n");
}

/** @param {Entry} entry */
function section({ model, question, pictures, outcome, opinion, verdict }) {
  const lines = [`## ${question.replace(/\s+/g, " ")}`, ""];
  const facts = [new Date(outcome.askedAt).toISOString(), model, outcome.requestId, ...pictures.map(({ name }) => name)];
  lines.push(`*${facts.filter(Boolean).join(" · ")}*`, "");
  if (outcome.text) lines.push(outcome.text, "");
  if (outcome.error) lines.push(`**${outcome.error.code}**: ${outcome.error.message}`, "");
  if (opinion) {
    const sure = opinion.confidence === null ? "" : ` (${Math.round(100 * opinion.confidence)}%)`;
    lines.push(`**${opinion.result}**${sure}`, "", ...opinion.reasons.map((reason) => `- ${reason}`), "");
  }
  if (verdict) lines.push(`→ **${verdict.decision}** ${verdict.note}`.trim(), "");
  return lines.join("\n");
}

/**
 * Hands a file to the person.
 * @param {string} content
 * @param {string} name with `.json` or `.md`
 */
export function saveAs(content, name) {
  const type = name.endsWith(".json") ? "application/json" : "text/markdown";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // by then the download has begun
}
