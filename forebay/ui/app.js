// @ts-check
/** Puts the playground together: pictures, a question, an answer that streams. */

import { Answer } from "./answer.js";
import { fetchSample } from "./api.js";
import { Asking } from "./asking.js";
import { Camera } from "./camera.js";
import { asCurl, asPython } from "./code.js";
import { byId, flash, listItem, namedButton } from "./dom.js";
import { Entries } from "./entries.js";
import { asJson, asMarkdown, saveAs } from "./export.js";
import { History } from "./history.js";
import { applyWords, chooseLanguage, exampleQuestions, inEveryLanguage, onLanguage, text } from "./i18n.js";
import { currentKey, followKeyDialog } from "./key.js";
import { Review } from "./review.js";
import { Samples } from "./samples.js";
import { followShortcuts } from "./shortcuts.js";
import { followSources } from "./sources.js";
import { Status } from "./status.js";
import { followTheme } from "./theme.js";
import { Tray } from "./tray.js";
import { Zoom } from "./zoom.js";

/** @typedef {import("./api.js").Sample} Sample */
/** @typedef {import("./entries.js").Entry} Entry */

const question = byId("question", HTMLTextAreaElement);
const send = byId("send", HTMLButtonElement);
const stop = byId("stop", HTMLButtonElement);

const tray = new Tray(() => chooseSample(null));
const answer = new Answer((boxes) => {
  tray.draw(boxes);
  showBoxes(boxes.length);
});
const entries = new Entries();
const asking = new Asking(answer, entries, () => refresh());
const review = new Review((entry) => void asking.keep(entry));
const samples = new Samples((sample) => void takeSample(sample));
const history = new History(entries, look);
const camera = new Camera((file) => tray.add([file]));
const zoom = new Zoom();
const status = new Status((vision) => {
  tray.see(vision);
  byId("by-url", HTMLButtonElement).hidden = !vision.fetches_urls;
});

/** @type {Sample | null} */
let chosen = null;
/** @type {"ask" | "review"} */
let mode = "ask";

/** @param {Sample | null} sample */
function chooseSample(sample) {
  chosen = sample;
  samples.mark(sample);
}

/** @param {Sample} sample */
async function takeSample(sample) {
  try {
    chooseSample(sample);
    const file = await fetchSample(sample);
    if (chosen !== sample) return; // another was clicked meanwhile
    tray.replace([file]);
    if (mode === "ask") setQuestion(sample.question);
  } catch (error) {
    answer.begin(sample.question, null);
    answer.fail(error);
  }
}

/** @param {string} words */
function setQuestion(words) {
  question.value = words;
  refreshSend();
}

function refreshSend() {
  send.disabled = question.value.trim() === "";
  send.hidden = asking.running;
  stop.hidden = !asking.running;
}

/** A question began or ended. */
function refresh() {
  refreshSend();
  if (asking.running) {
    tray.draw([]);
    showBoxes(0);
  }
  review.show(asking.running ? null : asking.entry);
}

/** @param {number} count */
function showBoxes(count) {
  const line = byId("found", HTMLParagraphElement);
  line.hidden = count === 0 || tray.onShow === null;
  line.textContent = text("found", { count });
}

/** @param {{fresh?: boolean}} [how] */
async function ask({ fresh = false } = {}) {
  const words = question.value.trim();
  if (words === "" || asking.running) return;
  const wanted = mode === "ask" && chosen?.question === words ? chosen.answer : null;
  await asking.ask({ kind: mode, question: words, wanted, fresh }, async () => ({
    model: await status.model(),
    pictures: await tray.toSend(),
  }));
}

/** Puts an entry's words and pictures back onto the desk. @param {Entry} entry */
function layOut(entry) {
  chooseSample(null);
  chooseMode(entry.kind);
  setQuestion(entry.question);
  tray.restore(entry.pictures);
}

/** @param {Entry} entry */
function look(entry) {
  asking.leave();
  layOut(entry);
  asking.look(entry);
  refresh();
}

/** Asks the question that is on show again; an equal question's answer will not do. */
async function retry() {
  const entry = asking.entry;
  if (asking.running) return;
  if (entry && (entry.question !== question.value.trim() || entry.kind !== mode)) layOut(entry);
  await ask({ fresh: true });
}

/** Takes the question back to change it; one that runs is stopped. */
function edit() {
  const entry = asking.entry;
  if (asking.running) asking.stop();
  if (entry && entry.question !== question.value.trim()) layOut(entry);
  question.focus();
  question.select();
}

/** @param {"ask" | "review"} wanted */
function chooseMode(wanted) {
  const before = mode;
  mode = wanted;
  for (const button of document.querySelectorAll("[data-mode]")) {
    button.setAttribute("aria-pressed", String(button.getAttribute("data-mode") === mode));
  }
  byId("examples", HTMLUListElement).hidden = mode === "review";
  send.textContent = text(mode === "review" ? "sendReview" : "send");
  if (before !== mode && mode === "review") setQuestion(text("reviewPrompt"));
  else if (before !== mode && isReviewPrompt(question.value)) setQuestion(chosen?.question ?? "");
}

/** @param {string} words */
function isReviewPrompt(words) {
  return inEveryLanguage("reviewPrompt").includes(words.trim());
}

function showExamples() {
  const items = exampleQuestions().map((words) =>
    listItem(
      namedButton(words, () => {
        setQuestion(words);
        question.focus();
      }),
    ),
  );
  byId("examples", HTMLUListElement).replaceChildren(...items);
}

/** @param {KeyboardEvent} event */
function askOnEnter(event) {
  const composing = event.isComposing || event.keyCode === 229; // Enter chooses a word there
  if (event.key !== "Enter" || event.shiftKey || event.ctrlKey || event.metaKey || composing) return;
  event.preventDefault();
  void ask();
}

/**
 * @param {string} id of the button
 * @param {() => string} words what it copies
 */
function followCopy(id, words) {
  const button = byId(id, HTMLButtonElement);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(words());
      flash(button, text("copied"));
    } catch {
      showCode(words()); // no clipboard without https: it is shown to be taken by hand
    }
  });
}

/** @param {string} words */
function showCode(words) {
  const code = byId("code-text", HTMLTextAreaElement);
  code.value = words;
  byId("code-dialog", HTMLDialogElement).showModal();
  code.select();
}

/** @returns {import("./code.js").Call} the question that is on show */
function call() {
  const entry = asking.entry;
  return {
    base: new URL("v1", document.baseURI).href,
    model: entry?.model ?? "",
    question: entry?.question ?? question.value.trim(),
    pictures: entry?.pictures ?? [],
    kind: entry?.kind ?? mode,
    keyed: currentKey() !== "",
  };
}

function followActions() {
  byId("retry", HTMLButtonElement).addEventListener("click", () => void retry());
  byId("edit", HTMLButtonElement).addEventListener("click", edit);
  followCopy("copy", () => answer.outcome.requestId);
  followCopy("copy-answer", () => (asking.entry?.opinion ? asJson([asking.entry]) : answer.said));
  followCopy("copy-curl", () => asCurl(call()));
  followCopy("copy-python", () => asPython(call()));
  byId("save-json", HTMLButtonElement).addEventListener("click", () => save(asJson, "forebay.json"));
  byId("save-markdown", HTMLButtonElement).addEventListener("click", () => save(asMarkdown, "forebay.md"));
  byId("code-close", HTMLButtonElement).addEventListener("click", () => byId("code-dialog", HTMLDialogElement).close());
}

/**
 * @param {(entries: Entry[]) => string} form
 * @param {string} name
 */
function save(form, name) {
  if (asking.entry) saveAs(form([{ ...asking.entry, outcome: answer.outcome }]), name);
}

function openZoom() {
  const shown = tray.onShow;
  if (shown) zoom.open(shown, tray.boxes);
}

function followKeys() {
  followShortcuts({
    "?": () => byId("help", HTMLButtonElement).click(),
    "/": () => question.focus(),
    "Ctrl+Enter": () => void ask(),
    Escape: () => asking.stop(),
    o: () => byId("file", HTMLInputElement).click(),
    c: () => camera.open(),
    z: openZoom,
    ArrowLeft: () => tray.turn(-1),
    ArrowRight: () => tray.turn(1),
    r: () => void retry(),
    e: edit,
    h: () => void history.open(),
    m: () => chooseMode(mode === "ask" ? "review" : "ask"),
    a: () => review.decide("approve"),
    x: () => review.decide("reject"),
    t: () => byId("theme", HTMLButtonElement).click(),
  });
}

/** Writes what scripts wrote in the language of now. */
function speak() {
  if (isReviewPrompt(question.value)) setQuestion(text("reviewPrompt"));
  showExamples();
  chooseMode(mode);
  samples.show();
  tray.render();
  answer.render();
  showBoxes(tray.boxes.length);
  review.render();
  status.render();
}

function start() {
  followTheme(byId("theme", HTMLButtonElement));
  followKeyDialog();
  applyWords();
  showExamples();
  chooseMode("ask");
  refreshSend();
  followSources(tray);
  followActions();
  followKeys();
  onLanguage(speak);
  for (const button of document.querySelectorAll("[data-language]")) {
    const language = button.getAttribute("data-language") === "zh" ? "zh" : "en";
    button.addEventListener("click", () => chooseLanguage(language));
  }
  for (const button of document.querySelectorAll("[data-mode]")) {
    const wanted = button.getAttribute("data-mode") === "review" ? "review" : "ask";
    button.addEventListener("click", () => chooseMode(wanted));
  }
  byId("desk", HTMLFormElement).addEventListener("submit", (event) => {
    event.preventDefault();
    void ask();
  });
  question.addEventListener("input", refreshSend);
  question.addEventListener("keydown", askOnEnter);
  stop.addEventListener("click", () => asking.stop());
  byId("zoom", HTMLButtonElement).addEventListener("click", openZoom);
  byId("preview-image", HTMLImageElement).addEventListener("click", openZoom);
  void asking.resume((entry, words) => (entry ? layOut(entry) : setQuestion(words)));
  void status.follow();
  samples.load().catch((error) => console.warn("no samples:", error));
  performance.mark("usable"); // what `python -m bench.page` looks for
}

start();
