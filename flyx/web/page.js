/**
 * The page: from what a person does to what flyx.js does, and back.
 *
 * @module
 */

import { parseInvitation } from "./flyx.js";
import { canKeep, tidy } from "./kept_sink.js";
import { Reception } from "./reception.js";
import { Sending } from "./sending.js";
import { Selection, sourcesDropped, sourcesOf } from "./picking.js";
import { amountText, sizeText } from "./texts.js";
import { copy, element, fill, notify, part, pathNode, say, sentence, show, shows } from "./view.js";

/** Where the page is: the server that it is served by, whatever is before it. */
const SERVER = new URL(".", location.href).href;

/** What is going on, if anything is. */
let running = null;

const selection = new Selection();

async function start() {
  tellDigest();
  const missing = whatIsMissing();
  if (missing) {
    part("unable-reason").textContent = missing.reason;
    part("unable-hint").textContent = missing.hint;
    show("unable");
    return;
  }
  listen();
  begin();
  // A page that the browser loads before anybody has asked for it joins no room.
  if (document.prerendering) {
    await new Promise((resolve) => document.addEventListener("prerenderingchange", resolve, { once: true }));
  }
  follow();
}

/** Why this browser cannot transfer, or null. */
function whatIsMissing() {
  if (!isSecureContext) {
    return {
      reason: "Browsers encrypt only for pages that came encrypted themselves. This one came by plain http.",
      hint:
        "Open it with https:// instead. If you run the server: give flyx serve a certificate with --tls-cert " +
        "and --tls-key, or put a proxy with one in front of it (flyx help serving). The program flyx needs " +
        "neither.",
    };
  }
  if (!("RTCPeerConnection" in window)) {
    return {
      reason: "This browser does not do WebRTC, by which the files go, or has it switched off.",
      hint: "Use a recent Firefox, Chromium, Chrome, Edge or Safari, or the program flyx.",
    };
  }
  return null;
}

/** Tell the SHA-256 of the page as this browser has got it. */
async function tellDigest() {
  if (!crypto.subtle) return;
  try {
    const page = await (await fetch(SERVER)).arrayBuffer();
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", page));
    part("page-digest").textContent = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  } catch {
    part("page-digest").textContent = "unknown, as the server does not answer";
  }
}

/** Show where it all begins. */
function begin() {
  running = null;
  show("start");
  document.title = "flyx";
  tellKept(false);
}

async function tellKept(all) {
  if (!canKeep()) return;
  try {
    const size = await tidy(all);
    part("kept").hidden = !size;
    part("kept-size").textContent = sizeText(size);
  } catch {
    // Without storage, nothing is kept in it.
  }
}

/** Do what the URL says: it is the link that a sender has passed on. */
function follow() {
  if (running?.isRunning || !isInvitation()) return;
  part("code").value = location.href;
  receiveBy(location.href);
}

function isInvitation() {
  try {
    return Boolean(parseInvitation(location.href).roomId);
  } catch {
    return false;
  }
}

/** The code is of no use any more, and no business of the history. */
function forgetLink() {
  if (isInvitation()) history.replaceState(null, "", SERVER);
}

function listen() {
  window.addEventListener("hashchange", follow);
  window.addEventListener("beforeunload", (event) => {
    if (running?.isBusy) event.preventDefault();
  });
  window.addEventListener("pagehide", () => running?.cancel());
  // Not every browser notices.
  const tellNetwork = (text) => running?.isRunning && notify(text);
  window.addEventListener("offline", () => {
    tellNetwork("This computer has no network. What is under way goes on when there is one.");
  });
  window.addEventListener("online", () => tellNetwork("This computer has a network again."));

  part("receive-form").addEventListener("submit", (event) => {
    event.preventDefault();
    receiveBy(part("code").value);
  });
  part("send-form").addEventListener("submit", (event) => {
    event.preventDefault();
    sendChosen();
  });
  part("kept-drop").addEventListener("click", () => tellKept(true));
  part("retry").addEventListener("click", () => running.again());
  for (const button of document.querySelectorAll("[data-cancel]")) {
    button.addEventListener("click", () => running?.cancel());
  }
  for (const button of document.querySelectorAll("[data-again]")) {
    button.addEventListener("click", () => {
      forgetLink();
      part("code").value = "";
      begin();
    });
  }
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", () => copy(part(button.dataset.copy).value));
  }
  for (const input of document.querySelectorAll("input[readonly]")) {
    input.addEventListener("focus", () => input.select());
  }
  listenForFiles();
}

function listenForFiles() {
  for (const [button, input] of [["choose-files", "files"], ["choose-folder", "folder"]]) {
    part(button).addEventListener("click", () => part(input).click());
    part(input).addEventListener("change", () => {
      choose(sourcesOf(part(input).files));
      if (input === "folder") part("chosen-note").hidden = false;
      // The same may be chosen again.
      part(input).value = "";
    });
  }
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", shows("start"));
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) document.body.classList.remove("over");
  });
  document.addEventListener("drop", async (event) => {
    event.preventDefault();
    document.body.classList.remove("over");
    if (!shows("start") || !event.dataTransfer) return;
    try {
      choose(await sourcesDropped(event.dataTransfer));
    } catch {
      part("words-error").textContent = "The browser could not read all of that.";
    }
  });
}

function choose(sources) {
  selection.add(sources);
  part("words-error").textContent = "";
  listChosen();
  say(`Chosen: ${part("chosen-amount").textContent}`);
}

function listChosen() {
  const { items } = selection;
  fill(
    part("chosen-list"),
    items.map((item) => {
      const remove = element("button", { type: "button", className: "link" }, "Remove");
      remove.setAttribute("aria-label", `Remove ${item.root}`);
      remove.addEventListener("click", () => {
        selection.remove(item.root);
        listChosen();
        part("choose-files").focus();
      });
      const amount = item.isFolder ? amountText(item) : sizeText(item.bytes);
      return [pathNode(item.isFolder ? `${item.root}/` : item.root), element("span", {}, amount), remove];
    }),
  );
  const sum = { files: 0, directories: 0, bytes: 0 };
  for (const item of items) for (const key of Object.keys(sum)) sum[key] += item[key];
  part("chosen").hidden = !items.length;
  part("chosen-amount").textContent = items.length ? amountText(sum) : "";
  part("send").disabled = !items.length;
}

function receiveBy(code) {
  part("code-error").textContent = "";
  try {
    parseInvitation(code);
  } catch (error) {
    mend("code", error);
    return;
  }
  const again = (error) => {
    begin();
    mend("code", error);
  };
  running = new Reception(SERVER, code, { begin, mend: again, succeeded: forgetLink });
  running.again();
}

function sendChosen() {
  const words = part("words").value.trim();
  part("words-error").textContent = "";
  const again = (error) => {
    begin();
    mend("words", error);
  };
  const options = { words, many: part("many").checked, token: part("token").value };
  running = new Sending(SERVER, selection.sources, options, { begin, mend: again });
  running.again();
}

/** Say at an input what is wrong with what is in it. */
function mend(id, { message, hint }) {
  part(`${id}-error`).textContent = [message, hint].filter(Boolean).map(sentence).join(" ");
  part(id).setAttribute("aria-invalid", "true");
  part(id).addEventListener("input", () => part(id).removeAttribute("aria-invalid"), { once: true });
  part(id).focus();
}

start();
