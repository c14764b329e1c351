/**
 * Receiving, as a person sees it: connecting, the offer, the transfer, the end.
 *
 * @module
 */

import { parseInvitation, receive } from "./flyx.js";
import { save } from "./downloads.js";
import { Meter } from "./meter.js";
import { placeFor } from "./places.js";
import { awake, fail } from "./running.js";
import { amountText, grouped, isHidden, pathText, sizeText, speedText } from "./texts.js";
import { copy, element, fill, notify, part, pathNode, say, sentence, show, shows, tell, visible } from "./view.js";

/** Names of an offer that are shown at first, and with each further look. */
const LISTED = 100;

const SILENT =
  "Nothing is heard from the sender. Waiting for it; if that takes too long, another connection is made.";
const LOST = "The connection is lost. Another one is being made; what is here stays.";
/** A text goes nowhere but to the page. */
const TEXT = { action: "Show it", notes: [], sink: async () => ({}) };

const STEPS = ["step-room", "step-path", "step-words", "step-offer"];

export class Reception {
  #server;
  #code;
  #page;
  #control = null;
  #manifest = null;
  #sink = null;
  #meter = null;
  /** Which way it comes, in words. */
  #way = "";
  #text = null;
  #seconds = 0;
  /** There was no room for it at the last try. */
  #isFull = false;
  /** What the person is being asked: called with null if nothing is to come of it. */
  #answer = null;

  /**
   * @param {string} server
   * @param {string} code
   * @param {{ begin: () => void, mend: (error: Error) => void, succeeded: () => void }} page Told when it is
   *     to show its start again, that there is something to be mended about the code, and that it has been of
   *     use.
   */
  constructor(server, code, page) {
    this.#server = server;
    this.#code = code;
    this.#page = page;
  }

  get isRunning() {
    return this.#control !== null;
  }

  /** Whether leaving the page would break something off. */
  get isBusy() {
    return this.isRunning && this.#manifest !== null;
  }

  /** Receive; once more, if it has failed. */
  async again() {
    this.#manifest = this.#sink = this.#text = null;
    const control = (this.#control = new AbortController());
    part("transfer-title").textContent = "Receiving";
    this.#step(0);
    show("connecting");
    const sleepless = await awake();
    const clock = setInterval(() => this.#meter?.draw(), 1000);
    try {
      const done = await receive({
        server: this.#server,
        code: this.#code,
        ask: (offer) => this.#ask(offer),
        askWords: (count) => this.#askWords(count),
        on: (event) => this.#on(event),
        signal: control.signal,
      });
      this.#page.succeeded();
      this.#succeed(done);
    } catch (error) {
      if (control.signal.aborted || error.code === "declined") this.#page.begin();
      else if (error.code === "bad_input") this.#page.mend(error);
      else fail(this.#withServer(error));
      this.#isFull = error.code === "no_space";
    } finally {
      this.#control = this.#meter = null;
      clearInterval(clock);
      sleepless();
    }
  }

  cancel() {
    this.#control?.abort();
    this.#answer?.(null);
  }

  /** The same error, with the server that the code names, if it is not there where we are. */
  #withServer(error) {
    const { server } = parseInvitation(this.#code);
    const host = server?.replace(/^\w+:\/\//, "").replace(/\/.*$/, "");
    if (error.code === "no_such_room" && host && host !== location.host) {
      error.hint = `the code is for another server: open the page at ${visible(host)} instead`;
    }
    return error;
  }

  #on(event) {
    switch (event.event) {
      case "room":
        this.#step(1);
        break;
      case "path":
        this.#way = sentence(`connected ${pathText(event)}`);
        this.#goesOn();
        this.#step(2);
        break;
      case "peer":
        if (event.state === "paired") this.#step(3);
        if (event.state === "silent") this.#standsStill("nothing heard", event.seconds, SILENT);
        if (event.state === "heard") this.#goesOn();
        if (event.state === "lost") this.#standsStill("no connection", 0, LOST);
        break;
      case "resume":
        if (event.bytes) say(`${sizeText(event.bytes)} of it are here from an earlier try.`);
        this.#meter?.resume(event.bytes);
        break;
      case "progress":
        this.#meter?.advance(event.bytes, event.total);
        break;
      case "file":
        if (!event.error) this.#meter?.file(event.path);
        break;
      case "text":
        this.#text = event.text;
        break;
      case "done":
        this.#seconds = event.seconds;
        break;
      case "notice":
        notify(sentence(event.message));
        break;
      default:
    }
  }

  #standsStill(state, seconds, text) {
    this.#meter?.standsStill(state, seconds);
    part("transfer-path").textContent = part("offer-path").textContent = text;
    say(text);
  }

  #goesOn() {
    this.#meter?.goesOn();
    part("transfer-path").textContent = part("offer-path").textContent = this.#way;
  }

  /** Show how far connecting has come; never that it has gone back. */
  #step(reached) {
    STEPS.forEach((id, place) => {
      const state = place < reached ? "done" : place === reached ? "now" : "later";
      if (reached && part(id).dataset.state === "done") return;
      part(id).dataset.state = state;
    });
    if (shows("connecting")) say(`${part(STEPS[reached]).textContent} …`);
  }

  #askWords(count) {
    part("asked-label").textContent = count
      ? `The ${count === 1 ? "word" : `${count} words`} that the sender shows`
      : "The words that you have agreed on";
    part("asked").value = "";
    show("asking-words");
    part("asked").focus();
    return new Promise((resolve, reject) => {
      this.#answer = () => reject(this.#control.signal.reason);
      part("asked-form").onsubmit = (event) => {
        event.preventDefault();
        show("connecting");
        resolve(part("asked").value);
      };
    });
  }

  async #ask({ manifest, verified }) {
    const { signal } = this.#control;
    const isText = manifest.content === "text";
    const place = isText ? TEXT : await placeFor(manifest, this.#isFull);
    if (signal.aborted) return null;
    this.#manifest = manifest;
    const directories = manifest.entries.length - manifest.files;
    const amount = {
      files: `${amountText({ files: manifest.files, directories, bytes: manifest.bytes })} for you`,
      stream: "A stream for you, of a size that is known at its end",
      text: "A text for you",
    }[manifest.content];
    part("offer-title").textContent = amount;
    part("offer-verified").textContent = verified
      ? "From the person who has given you the code: both of you know its words."
      : "This code has no words: whoever runs the server could have put something else in its place.";
    this.#list(manifest);
    fill(part("offer-notes"), isText ? [] : [...notesOn(manifest), ...place.notes]);
    part("save").textContent = place.action;
    part("save").hidden = !place.sink;
    show("offer");
    return new Promise((resolve) => {
      const answer = (sink) => {
        this.#answer = null;
        this.#sink = sink;
        if (sink) this.#showTransfer();
        resolve(sink);
      };
      this.#answer = answer;
      part("decline").onclick = () => answer(null);
      part("save").onclick = async () => {
        try {
          const sink = await place.sink();
          if (sink) answer(sink);
        } catch (error) {
          say(`The browser does not let the page write there: ${error.message}`);
          fill(part("offer-notes"), [`The browser does not let the page write there: ${error.message}`]);
        }
      };
    });
  }

  #list({ content, entries }) {
    const list = part("offer-list");
    list.replaceChildren();
    const more = part("offer-more");
    const listMore = () => {
      const shown = list.children.length;
      const items = entries.slice(shown, shown + LISTED);
      for (const { kind, told, size } of items) {
        const amount = kind === "directory" ? "folder" : content === "stream" ? "stream" : sizeText(size);
        list.append(element("li", {}, pathNode(told), element("span", {}, amount)));
      }
      const left = entries.length - list.children.length;
      more.hidden = left <= 0;
      more.textContent = left > LISTED ? `Show ${LISTED} of ${grouped(left)} more` : `Show ${left} more`;
    };
    if (content !== "text") listMore();
    // Reachable by keys, as it scrolls.
    list.tabIndex = list.children.length ? 0 : -1;
    more.onclick = listMore;
    if (content === "text") more.hidden = true;
  }

  #showTransfer() {
    this.#meter = new Meter(part("transfer-bar"), part("transfer-numbers"), part("transfer-file"));
    this.#meter.start(this.#manifest.content === "stream" ? null : this.#manifest.bytes);
    show("transfer");
  }

  #succeed(done) {
    const { content } = this.#manifest ?? { content: "text" };
    const isText = content === "text";
    part("done-title").textContent = isText
      ? "A text for you"
      : `Received ${amountText({ ...done, directories: 0 })}`;
    part("done-place").textContent = isText ? "" : this.#place(done);
    tell("done-text", this.#text === null ? "" : this.#text);
    part("done-digest").hidden = isText || !done.digest;
    part("digest").textContent = done.digest ?? "";
    part("done-copy").hidden = !isText;
    part("done-copy").onclick = () => copy(this.#text);
    part("done-save").hidden = !this.#sink?.file;
    const saveIt = () => save(this.#sink.file, this.#sink.name);
    part("done-save").onclick = saveIt;
    if (this.#sink?.file) saveIt();
    const missing = done.missing ? [`${grouped(done.missing)} of what was offered could not be had.`] : [];
    fill(part("done-notes"), missing);
    show("done");
    say(part("done-title").textContent);
  }

  #place({ bytes }) {
    const speed = speedText(bytes, this.#seconds);
    if (this.#sink.file) {
      const name = visible(this.#sink.name);
      return `All of it is verified${speed}. The browser saves it as ${name}; leave this page open until it has.`;
    }
    return `All of it is verified and saved ${visible(this.#sink.place)}${speed}.`;
  }
}

/** What a person should know of an offer, besides the names. */
function notesOn(manifest) {
  const notes = [];
  const { entries, absent } = manifest;
  const hidden = entries.filter(({ path }) => isHidden(path));
  if (hidden.length) {
    const named = hidden.slice(0, 5).map(({ told }) => visible(told));
    const others = hidden.length > named.length ? ` and ${grouped(hidden.length - named.length)} more` : "";
    notes.push(`Programs may act on names that begin with a dot: ${named.join(", ")}${others}.`);
  }
  const renamed = entries.filter(({ path, told }) => path !== told).length;
  if (renamed === 1) notes.push("One of the names cannot be had here, and becomes another.");
  if (renamed > 1) notes.push(`${grouped(renamed)} of the names cannot be had here, and become others.`);
  if (absent.length) {
    const named = absent.slice(0, 5).map(({ path, reason }) => `${visible(path)} (${reason})`);
    const others = absent.length > named.length ? ` and ${grouped(absent.length - named.length)} more` : "";
    notes.push(`Does not come: ${named.join(", ")}${others}.`);
  }
  return notes;
}
