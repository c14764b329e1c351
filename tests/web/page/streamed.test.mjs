import assert from "node:assert/strict";
import fs from "node:fs";
import test, { mock } from "node:test";

import { StreamedOutput } from "../../../flyx/web/streamed_output.js";

const SCRIPT = fs.readFileSync(new URL("../../../flyx/web/streamed_worker.js", import.meta.url), "utf8");

/** A service worker as a browser has it, which may end it at any time, and start it anew for the next message. */
class Worker {
  #listeners = {};

  constructor() {
    this.start();
  }

  start() {
    new Function("addEventListener", SCRIPT)((name, listener) => {
      this.#listeners[name] = listener;
    });
  }

  postMessage(data, ports = []) {
    this.#listeners.message({ data, ports });
  }

  fetch(url) {
    let answer = null;
    this.#listeners.fetch({ request: { url }, respondWith: (given) => (answer = given) });
    return answer;
  }
}

/** What the browser answers the frame of the page with. */
let response;

/** A worker that was just started, and the rest of a browser around it. */
function started() {
  const worker = new Worker();
  response = null;
  globalThis.document = {
    createElement: () => ({}),
    body: { append: ({ src }) => (response = worker.fetch(src)) },
  };
  globalThis.addEventListener = globalThis.removeEventListener = () => {};
  return worker;
}

mock.timers.enable({ apis: ["setInterval"] });

/** A turn of the event loop: messages have come. */
const turn = () => new Promise((resolve) => setImmediate(resolve));

async function turns() {
  for (let n = 0; n < 10; n += 1) await turn();
}

/** A download that was begun: its output, and what reads it in the place of the browser. */
async function begun(name = "file", size = null) {
  const worker = started();
  const output = new StreamedOutput(worker);
  const beginning = output.begin(name, size);
  while (!response) await turn();
  const reader = response.body.getReader();
  const first = reader.read();
  await beginning;
  return { worker, output, reader, first };
}

/** Let so many seconds pass, as both sides see them. */
async function pass(seconds) {
  for (let passed = 0; passed < seconds; passed += 5) {
    mock.timers.tick(5000);
    await turns();
  }
}

test("the browser gets a download of this name and size, and each byte", async () => {
  const { output, reader, first } = await begun("it's größer.txt", 3);
  assert.equal(response.headers.get("Content-Disposition"), "attachment; filename*=UTF-8''it%27s%20gr%C3%B6%C3%9Fer.txt");
  assert.equal(response.headers.get("Content-Length"), "3");
  await output.write(new Uint8Array([1, 2]));
  assert.deepEqual((await first).value, new Uint8Array([1, 2]));
  const second = reader.read();
  await output.write(new Uint8Array([3]));
  assert.deepEqual((await second).value, new Uint8Array([3]));
  const third = reader.read();
  await output.complete();
  assert.equal((await third).done, true);
});

test("nothing more is sent before the browser has taken what there was", async () => {
  const { output, reader } = await begun();
  await output.write(new Uint8Array([1]));
  let isWritten = false;
  const writing = output.write(new Uint8Array([2])).then(() => (isWritten = true));
  await turns();
  assert.equal(isWritten, false);
  const second = reader.read();
  await writing;
  assert.deepEqual((await second).value, new Uint8Array([2]));
  output.abort();
  await assert.rejects(reader.read());
});

test("a download that waits for the sender goes on when it is there again", async () => {
  const { output, first } = await begun();
  await pass(300);
  await output.write(new Uint8Array([1]));
  assert.deepEqual((await first).value, new Uint8Array([1]));
  output.abort();
  await turns();
});

test("a page that is gone leaves no file that looks whole", async () => {
  const { worker, output, reader, first } = await begun();
  await output.write(new Uint8Array([1]));
  await first;
  worker.postMessage = () => {};
  const failed = assert.rejects(reader.read(), /broken off/);
  await pass(25);
  await failed;
});

test("what the page breaks off fails", async () => {
  const { output, first } = await begun();
  output.abort();
  await assert.rejects(first, /broken off/);
});

test("whoever stops the download in the browser stops the transfer", async () => {
  const { output, reader, first } = await begun();
  await output.write(new Uint8Array([1]));
  await first;
  await reader.cancel();
  await assert.rejects(output.write(new Uint8Array([2])), /stopped the download/);
});

test("a worker that the browser has ended is noticed: what was saved is not taken for whole", async () => {
  const { worker, output, reader, first } = await begun();
  await output.write(new Uint8Array([1]));
  await first;
  reader.read().catch(() => {});
  await output.write(new Uint8Array([2]));
  worker.start();
  const ending = assert.rejects(output.complete(), /broken the download off/);
  await pass(25);
  await ending;
});

test("nobody else's request is answered", () => {
  const worker = started();
  assert.equal(worker.fetch("https://flyx.example.org/web/1/download/none"), null);
  assert.equal(worker.fetch("https://flyx.example.org/web/1/page.js"), null);
});
