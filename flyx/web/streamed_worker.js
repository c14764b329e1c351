/**
 * A service worker that answers requests for download/ID with what the page sends it: streamed_output.js tells
 * why it is pinged. It controls no page, and answers nothing else.
 *
 * The page opens a download by { open: ID, name, size } and a port, pings it by { ping: ID }, and sends bytes,
 * and at last "end" or "abort", to the port. There it is told "opened", "more" when the browser has taken all
 * that was sent, "alive" to each ping, and "stopped" when the browser wants no more.
 *
 * No module: not every browser starts one as a service worker.
 */

/** Milliseconds between two looks, and how many of them may find that the page has sent no ping since. */
const LOOK_INTERVAL = 5000;
const PATIENCE = 4;

/** By the id of each. */
const downloads = new Map();

class Download {
  #port;
  #missed = 0;
  #looking;
  #forget;
  /** Of the answer, once the browser has asked for it. */
  #controller = null;

  constructor(port, { name, size }, forget) {
    this.#port = port;
    this.name = name;
    this.size = size;
    this.#forget = forget;
    port.onmessage = ({ data }) => this.#receive(data);
    // Before the browser ends this worker, and leaves a file that looks whole.
    this.#looking = setInterval(() => {
      this.#missed += 1;
      if (this.#missed > PATIENCE) this.#receive("abort");
    }, LOOK_INTERVAL);
    port.postMessage("opened");
  }

  ping() {
    this.#missed = 0;
    this.#port.postMessage("alive");
  }

  answer() {
    const headers = new Headers({
      "Content-Type": "application/octet-stream",
      "Content-Disposition": `attachment; filename*=UTF-8''${encoded(this.name)}`,
      "X-Content-Type-Options": "nosniff",
    });
    if (this.size !== null) headers.set("Content-Length", this.size);
    const source = {
      start: (controller) => {
        this.#controller = controller;
      },
      pull: () => this.#port.postMessage("more"),
      cancel: () => {
        this.#port.postMessage("stopped");
        this.#close();
      },
    };
    // Nothing is asked for before the browser has taken all that there was.
    return new Response(new ReadableStream(source, { highWaterMark: 0 }), { headers });
  }

  #receive(data) {
    if (data === "end") {
      this.#controller.close();
      this.#close();
    } else if (data === "abort") {
      this.#controller?.error(new Error("it was broken off"));
      this.#close();
    } else {
      this.#controller.enqueue(data);
    }
  }

  #close() {
    clearInterval(this.#looking);
    this.#port.close();
    this.#forget();
  }
}

/** As RFC 8187 has it. */
function encoded(name) {
  return encodeURIComponent(name).replace(/['()*]/g, (each) => `%${each.charCodeAt(0).toString(16)}`);
}

addEventListener("message", ({ data, ports: [port] }) => {
  const { open, ping } = data;
  if (open) downloads.set(open, new Download(port, data, () => downloads.delete(open)));
  else downloads.get(ping)?.ping();
});

addEventListener("fetch", (event) => {
  const [, id] = new URL(event.request.url).pathname.match(/\/download\/([^/]+)$/) ?? [];
  const download = downloads.get(id);
  if (download) event.respondWith(download.answer());
});
