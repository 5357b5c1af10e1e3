// @ts-check
/** Puts the page together: a picture, a question, an answer that streams. */

import { Answer } from "./answer.js";
import { fetchSample, submitTask } from "./api.js";
import { actionButton, byId, listItem } from "./dom.js";
import { applyWords, chooseLanguage, exampleQuestions, text } from "./i18n.js";
import { followKeyDialog } from "./key.js";
import { Picture } from "./picture.js";
import { Samples } from "./samples.js";
import { recallHere, rememberHere } from "./memory.js";
import { Status } from "./status.js";
import { dropTask, followTask } from "./task.js";
import { followTheme } from "./theme.js";

/** @typedef {import("./api.js").Sample} Sample */

const question = byId("question", HTMLTextAreaElement);
const send = byId("send", HTMLButtonElement);
const stop = byId("stop", HTMLButtonElement);

const answer = new Answer();
const status = new Status();
const samples = new Samples((sample) => void takeSample(sample));
const picture = new Picture((_file, source) => {
  if (source === "person") chooseSample(null);
});

/** @type {Sample | null} */
let chosen = null;
/** @type {AbortController | null} */
let running = null;
let leaving = false;

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
    picture.set(file, "sample");
    setQuestion(sample.question);
  } catch (error) {
    answer.begin(null);
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
  send.hidden = running !== null;
  stop.hidden = running === null;
}

/** What a reload needs to go on with a question. @typedef {{taskId: string, requestId: string, question: string}} Open */
const OPEN = "open";

async function ask() {
  const words = question.value.trim();
  if (words === "" || running) return;
  await run(chosen && chosen.question === words ? chosen.answer : null, async (signal) => {
    const model = await status.model();
    const task = await submitTask({ model, question: words, image: picture.file, signal });
    return { ...task, question: words };
  });
}

/** Goes on with the question that was open when the page was left. */
async function goOn() {
  /** @type {Open | null} */
  const open = JSON.parse(recallHere(OPEN) ?? "null");
  if (!open) return;
  setQuestion(open.question);
  await run(null, async () => open);
}

/**
 * @param {string | null} wanted the right answer, where it is known
 * @param {(signal: AbortSignal) => Promise<Open>} submit
 */
async function run(wanted, submit) {
  const control = new AbortController();
  running = control;
  refreshSend();
  answer.begin(wanted);
  /** @type {Open | null} */
  let open = null;
  try {
    open = await submit(control.signal);
    rememberHere(OPEN, JSON.stringify(open));
    answer.take({ kind: "open", requestId: open.requestId });
    for await (const event of followTask(open.taskId, open.requestId, control.signal)) answer.take(event);
    answer.finish();
  } catch (error) {
    if (!control.signal.aborted) answer.fail(error);
    else await giveUp(open);
  } finally {
    if (!leaving) rememberHere(OPEN, null);
    running = null;
    refreshSend();
  }
}

/** @param {Open | null} open */
async function giveUp(open) {
  answer.stop();
  if (open) await dropTask(open.taskId);
}

function showExamples() {
  const items = exampleQuestions().map((words) => {
    const button = actionButton(() => {
      setQuestion(words);
      question.focus();
    });
    button.textContent = words;
    return listItem(button);
  });
  byId("examples", HTMLUListElement).replaceChildren(...items);
}

/** @param {KeyboardEvent} event */
function askOnEnter(event) {
  const composing = event.isComposing || event.keyCode === 229; // Enter chooses a word there
  if (event.key !== "Enter" || event.shiftKey || composing) return;
  event.preventDefault();
  void ask();
}

async function copyRequestId() {
  const copy = byId("copy", HTMLButtonElement);
  const id = byId("fact-request", HTMLElement);
  try {
    await navigator.clipboard.writeText(id.textContent ?? "");
    copy.textContent = text("copied");
    setTimeout(() => (copy.textContent = text("copy")), 1500);
  } catch {
    getSelection()?.selectAllChildren(id); // no clipboard without https: select it instead
  }
}

/** @param {"en" | "zh"} language */
function speak(language) {
  chooseLanguage(language);
  showExamples();
  samples.show();
  answer.render();
  status.render();
}

function start() {
  followTheme(byId("theme", HTMLButtonElement));
  followKeyDialog();
  applyWords();
  showExamples();
  refreshSend();
  for (const button of document.querySelectorAll("[data-language]")) {
    const language = button.getAttribute("data-language") === "zh" ? "zh" : "en";
    button.addEventListener("click", () => speak(language));
  }
  byId("desk", HTMLFormElement).addEventListener("submit", (event) => {
    event.preventDefault();
    void ask();
  });
  question.addEventListener("input", refreshSend);
  question.addEventListener("keydown", askOnEnter);
  stop.addEventListener("click", () => running?.abort());
  byId("copy", HTMLButtonElement).addEventListener("click", () => void copyRequestId());
  // a browser fails what is under way when the page is left: that is no end of the question
  addEventListener("pagehide", () => (leaving = true));
  addEventListener("pageshow", () => (leaving = false));
  void goOn();
  void status.follow();
  samples.load().catch((error) => console.warn("no samples:", error));
}

start();
