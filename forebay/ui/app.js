// @ts-check
/**
 * The page's start: what must be there for every key and button to do what it says. What they do it
 * with, the desk, comes after; who is quicker is served when it is there.
 */

import { byId } from "./dom.js";
import { applyWords, chooseLanguage, onLanguage, text } from "./i18n.js";
import { Question } from "./question.js";
import { followShortcuts } from "./shortcuts.js";
import { followSources } from "./sources.js";
import { followTheme } from "./theme.js";

/** @typedef {import("./desk.js").Desk} Desk */

/** @type {Promise<Desk> | null} */
let coming = null;

/** @returns {Promise<Desk>} once it is there */
function desk() {
  coming ??= import("./desk.js").then(({ Desk }) => new Desk(question));
  return coming;
}

/** @param {(desk: Desk) => void} deed done as soon as it can be */
function use(deed) {
  desk().then(deed, (error) => {
    coming = null; // the next deed tries again
    byId("status", HTMLElement).dataset.state = "gone";
    byId("status-text", HTMLElement).textContent = text("gone");
    console.error("the page is not whole:", error);
  });
}

/**
 * @param {string} id of a button
 * @param {(desk: Desk) => void} deed
 */
function onClick(id, deed) {
  byId(id, HTMLButtonElement).addEventListener("click", () => use(deed));
}

function followKeys() {
  followShortcuts({
    "?": () => byId("help", HTMLButtonElement).click(),
    "/": () => question.focus(),
    "Ctrl+Enter": () => use((desk) => desk.ask()),
    Escape: () => use((desk) => desk.stop()),
    o: () => byId("file", HTMLInputElement).click(),
    c: () => use((desk) => desk.openCamera()),
    z: () => use((desk) => desk.openZoom()),
    ArrowLeft: () => use((desk) => desk.tray.turn(-1)),
    ArrowRight: () => use((desk) => desk.tray.turn(1)),
    r: () => use((desk) => desk.retry()),
    e: () => use((desk) => desk.edit()),
    h: () => use((desk) => desk.openHistory()),
    m: () => question.turn(),
    a: () => use((desk) => desk.decide("approve")),
    x: () => use((desk) => desk.decide("reject")),
    t: () => byId("theme", HTMLButtonElement).click(),
  });
}

function followChoices() {
  followTheme(byId("theme", HTMLButtonElement));
  for (const button of document.querySelectorAll("[data-language]")) {
    const language = button.getAttribute("data-language") === "zh" ? "zh" : "en";
    button.addEventListener("click", () => chooseLanguage(language));
  }
}

/** Asks for all that the desk consists of at once; else each part is known only from the one before. */
function fetchTheRest() {
  document.head.append(byId("rest", HTMLTemplateElement).content);
  use(() => performance.mark("whole"));
}

applyWords();
onLanguage(applyWords);
const question = new Question(() => use((desk) => desk.ask()));
onLanguage(() => question.render());
followChoices();
followSources({
  add: (files, beside) => use((desk) => desk.tray.add(files, beside)),
  addUrl: (url) => use((desk) => desk.tray.addUrl(url)),
});
followKeys();
onClick("history", (desk) => desk.openHistory());
onClick("camera", (desk) => desk.openCamera());
byId("camera", HTMLButtonElement).hidden = !navigator.mediaDevices; // the page has no right to one
performance.mark("usable"); // what `python -m bench.page` looks for
fetchTheRest();
