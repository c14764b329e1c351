/**
 * Sending, as a person sees it: what to pass on, who has come, how far each of them is.
 *
 * @module
 */

import { send } from "./flyx.js";
import { Meter } from "./meter.js";
import { awake, fail } from "./running.js";
import { amountText, grouped, pathText, speedText } from "./texts.js";
import { element, fill, notify, part, say, sentence, show, tell } from "./view.js";

const STATES = {
  joined: "connecting",
  paired: "is asked whether to take it",
  silent: "says nothing: waiting for it; if that takes too long, another connection is made",
  lost: "connection lost, another one is being made",
  done: "has everything",
};

/** Names that each computer has for itself. */
const HERE = /^(localhost|127\.[\d.]+|\[::1\])$/;

export class Sending {
  #server;
  #sources;
  #options;
  #page;
  #control = null;
  #receivers = new Map();
  #seconds = 0;

  /**
   * @param {string} server
   * @param {readonly import("./flyx.js").Source[]} sources
   * @param {{ words: string, many: boolean, token: string }} options words: "" for random ones; many: go on
   *     until stopped; token: "" for none.
   * @param {{ begin: () => void, mend: (error: Error) => void }} page Told when it is to show its start again,
   *     and that there is something to be mended about the words.
   */
  constructor(server, sources, options, page) {
    this.#server = server;
    this.#sources = sources;
    this.#options = options;
    this.#page = page;
  }

  get isRunning() {
    return this.#control !== null;
  }

  /** Whether leaving the page would break something off. */
  get isBusy() {
    return this.isRunning;
  }

  /** Send; once more, if it has failed. */
  async again() {
    this.#receivers.clear();
    const control = (this.#control = new AbortController());
    part("send").disabled = true;
    const sleepless = await awake();
    const clock = setInterval(() => {
      for (const { meter, isUnderWay } of this.#receivers.values()) if (isUnderWay) meter.draw();
    }, 1000);
    try {
      const done = await send({
        server: this.#server,
        entries: this.#sources,
        words: this.#options.words || undefined,
        receivers: this.#options.many ? 0 : 1,
        apiToken: this.#options.token || undefined,
        on: (event) => this.#on(event),
        signal: control.signal,
      });
      this.#succeed(done);
    } catch (error) {
      if (!control.signal.aborted) this.#fail(error);
      else if (this.#served) this.#succeed([]);
      else this.#page.begin();
    } finally {
      this.#control = null;
      part("send").disabled = false;
      clearInterval(clock);
      sleepless();
    }
  }

  cancel() {
    this.#control?.abort();
  }

  /** How many have everything. */
  get #served() {
    return [...this.#receivers.values()].filter(({ isServed }) => isServed).length;
  }

  #on(event) {
    switch (event.event) {
      case "room":
        this.#share(event);
        break;
      case "peer":
        this.#tellPeer(event);
        break;
      case "path":
        this.#receiver(event.peer).calm.way = sentence(`connected ${pathText(event)}`);
        this.#goesOn(this.#receiver(event.peer));
        break;
      case "resume":
        this.#receiver(event.peer).meter.resume(event.bytes);
        break;
      case "progress":
        this.#progress(event);
        break;
      case "done":
        this.#receiver(event.peer).isServed = true;
        this.#seconds = event.seconds;
        break;
      case "notice":
        notify(sentence(event.message));
        break;
      default:
    }
  }

  #share({ code, url }) {
    const files = this.#sources.filter(({ kind }) => kind !== "directory");
    const bytes = files.reduce((sum, { size }) => sum + size, 0);
    const directories = this.#sources.length - files.length;
    const amount = amountText({ files: files.length, directories, bytes });
    part("share-what").textContent = `Ready to send: ${amount}`;
    part("share-link").value = url;
    part("share-code").value = code;
    part("share-command").value = `flyx receive --server ${this.#server.replace(/\/$/, "")} ${code}`;
    part("share-here").hidden = !HERE.test(location.hostname);
    fill(part("share-peers"), []);
    part("share-nobody").hidden = false;
    show("share");
    say(`Ready. The code is ${code}`);
  }

  #receiver(peer) {
    const known = this.#receivers.get(peer);
    if (known) return known;
    const state = element("span", {}, STATES.joined);
    const bar = element("progress", { hidden: true });
    bar.setAttribute("aria-label", `Receiver ${peer}`);
    const numbers = element("span", { className: "numbers" });
    const way = element("span", { className: "quiet" });
    const name = element("span", { className: "path" }, `Receiver ${peer}`);
    part("share-peers").append(element("li", {}, name, state, bar, numbers, way));
    part("share-nobody").hidden = true;
    // What is to be read of it as long as it is heard; and whether bytes are under way.
    const calm = { state: STATES.joined, way: "" };
    const receiver = { state, bar, way, meter: new Meter(bar, numbers), calm, isUnderWay: false, isServed: false };
    receiver.meter.start(null);
    this.#receivers.set(peer, receiver);
    return receiver;
  }

  #tellPeer({ peer, state, message, seconds }) {
    const receiver = this.#receiver(peer);
    if (state === "heard") {
      this.#goesOn(receiver);
      return;
    }
    receiver.state.textContent = state === "failed" ? sentence(message) : STATES[state];
    if (state === "silent" || state === "lost") {
      receiver.meter.standsStill(state === "silent" ? "nothing heard" : "no connection", seconds ?? 0);
      receiver.way.textContent = "";
    } else {
      receiver.calm.state = receiver.state.textContent;
    }
    if (state === "done") receiver.isServed = true;
    if (state === "done" || state === "failed") {
      receiver.bar.hidden = true;
      receiver.isUnderWay = false;
    }
    say(`Receiver ${peer}: ${receiver.state.textContent}`);
  }

  #goesOn({ meter, state, way, calm }) {
    meter.goesOn();
    state.textContent = calm.state;
    way.textContent = calm.way;
  }

  #progress({ peer, bytes, total }) {
    const receiver = this.#receiver(peer);
    receiver.bar.hidden = false;
    receiver.isUnderWay = true;
    receiver.state.textContent = receiver.calm.state = "is receiving";
    receiver.meter.advance(bytes, total);
  }

  #succeed(done) {
    const [first] = done;
    const count = Math.max(this.#served, done.length);
    part("done-title").textContent = count === 1 ? "Sent" : `Sent to ${grouped(count)} receivers`;
    const amount = first ? amountText({ ...first, directories: 0 }) : "";
    part("done-place").textContent =
      first && count === 1
        ? `${amount}${speedText(first.bytes, this.#seconds)}: the receiver has all of it, and has verified it.`
        : "Each of them has all of it, and has verified it.";
    tell("done-text", "");
    part("done-save").hidden = part("done-copy").hidden = true;
    part("done-digest").hidden = !first?.digest;
    part("digest").textContent = first?.digest ?? "";
    fill(part("done-notes"), first?.missing ? [`${grouped(first.missing)} of it could not be had there.`] : []);
    show("done");
    say(part("done-title").textContent);
  }

  #fail(error) {
    // It is about the words: there is nothing else to type.
    if (error.code === "bad_input") this.#page.mend(error);
    else fail(error);
  }
}
