/**
 * An Output (row_sink.js) that the browser saves as a download while it comes: a service worker answers a
 * request of this page with it (streamed_worker.js). For browsers that give a page no storage, as a private
 * window of Firefox does, or less than is needed.
 *
 * Browsers end a service worker that gets no messages, Firefox after 30 s; one that answers is no exception,
 * and the download that it breaks off looks whole. Those on its ports do not count. So it is sent one every
 * few seconds, as long as the page is there; when none comes it makes the download fail while it can. And when
 * none is answered, the page knows that the download was broken off.
 *
 * @module
 */

import { deferred, timeLimit } from "./timing.js";

/** Milliseconds between two messages; streamed_worker.js counts on them. */
const PING_INTERVAL = 5000;

/** How many of them may be without an answer, as a busy browser is slow. */
const PATIENCE = 4;

/** Seconds within which the browser has to begin. */
const BEGINNING = 20;

const STOPPED =
  "the browser has stopped the download, because somebody told it to or the disk is full; what it has saved " +
  "of it is not whole";
const CUT_OFF = "the browser has broken the download off; what it has saved of it is not whole";

/** @implements {import("./row_sink.js").Output} */
export class StreamedOutput {
  #worker;
  #port = null;
  /** How many pieces the browser has asked for. */
  #asked = 0;
  #unanswered = 0;
  #timer;
  /** @type {Error | null} */
  #error = null;
  /** When something has come of the worker. */
  #news = deferred();

  /** @param {ServiceWorker} worker */
  constructor(worker) {
    this.#worker = worker;
  }

  async begin(name, size) {
    const { port1, port2 } = new MessageChannel();
    const id = crypto.randomUUID();
    this.#port = port1;
    const opened = deferred();
    port1.onmessage = ({ data }) => {
      this.#unanswered = 0;
      if (data === "opened") opened.resolve();
      else if (data === "more") this.#asked += 1;
      else if (data === "stopped") this.#fail(new Error(STOPPED));
      this.#tell();
    };
    this.#worker.postMessage({ open: id, name, size }, [port2]);
    this.#timer = setInterval(() => this.#ping(id), PING_INTERVAL);
    addEventListener("pagehide", this.#leave);
    const late = new Error("the browser does not begin with the download");
    const begun = opened.promise.then(() => {
      // It stays: Firefox would drop a short download with it, even when all of it was taken.
      const frame = document.createElement("iframe");
      frame.hidden = true;
      frame.src = new URL(`download/${id}`, import.meta.url).href;
      document.body.append(frame);
      return this.#isAsked();
    });
    await timeLimit(begun, BEGINNING, late);
  }

  async write(bytes) {
    await this.#isAsked();
    this.#asked -= 1;
    this.#port.postMessage(bytes, [bytes.buffer]);
  }

  async complete() {
    // The browser asks for more when it has taken all that there was.
    await this.#isAsked();
    this.#close("end");
  }

  abort() {
    this.#close("abort");
  }

  // The worker would find out by itself, but later.
  #leave = () => this.abort();

  #close(why) {
    this.#port?.postMessage(why);
    clearInterval(this.#timer);
    removeEventListener("pagehide", this.#leave);
  }

  async #isAsked() {
    while (!this.#asked) {
      if (this.#error) throw this.#error;
      await this.#news.promise;
    }
    if (this.#error) throw this.#error;
  }

  #ping(id) {
    if (this.#unanswered >= PATIENCE) this.#fail(new Error(CUT_OFF));
    this.#unanswered += 1;
    this.#worker.postMessage({ ping: id });
  }

  #fail(error) {
    this.#error ??= error;
    clearInterval(this.#timer);
    this.#tell();
  }

  #tell() {
    this.#news.resolve();
    this.#news = deferred();
  }
}

/**
 * A StreamedOutput, or null if this browser does not let a page have a service worker.
 *
 * @returns {Promise<StreamedOutput | null>}
 */
export async function streamedOutput() {
  try {
    const address = new URL("streamed_worker.js", import.meta.url);
    const registration = await navigator.serviceWorker.register(address);
    const worker = registration.active ?? registration.waiting ?? registration.installing;
    await activated(worker);
    return new StreamedOutput(worker);
  } catch {
    return null;
  }
}

/** @param {ServiceWorker} worker */
function activated(worker) {
  return new Promise((resolve, reject) => {
    const look = () => {
      if (worker.state === "activated") resolve(undefined);
      else if (worker.state === "redundant") reject(new Error("the service worker could not be started"));
    };
    worker.addEventListener("statechange", look);
    look();
  });
}
