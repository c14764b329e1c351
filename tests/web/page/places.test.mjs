import assert from "node:assert/strict";
import test from "node:test";

import { placeFor } from "../../../flyx/web/places.js";

const GB = 10 ** 9;

/** A browser that lets a page have these; `room` is what its storage has, 0 if a page may keep nothing. */
function browser({ dialogs = false, room = 0, workers = false }) {
  globalThis.window = dialogs ? { showSaveFilePicker: true, showDirectoryPicker: true } : {};
  const denied = async () => {
    throw new DOMException("not here", "SecurityError");
  };
  const directory = { getDirectoryHandle: async (name) => (name === "flyx" ? directory : denied()) };
  const storage = {
    getDirectory: room ? async () => directory : denied,
    estimate: async () => ({ quota: room, usage: 0 }),
  };
  const active = { state: "activated", addEventListener: () => {} };
  const serviceWorker = { register: workers ? async () => ({ active }) : denied };
  Object.defineProperty(globalThis, "navigator", { value: { storage, locks: {}, serviceWorker }, configurable: true });
}

const WAYS = [
  [/room for it twice/, "storage"],
  [/saves it while it comes/, "download"],
  [/kept in memory/, "memory"],
  [/can take at most/, "none"],
];

/** Where so many bytes go; null is a stream. */
async function placeOf(bytes, has, isFull = false) {
  browser(has);
  const entries = [{ index: 0, path: "file", kind: "file", size: bytes ?? 0, mtime: 0 }];
  const content = bytes === null ? "stream" : "files";
  const { notes, sink } = await placeFor({ id: "0", content, entries, roots: ["file"], bytes: bytes ?? 0 }, isFull);
  if (has.dialogs) return notes.length ? "?" : "dialog";
  const [, way] = WAYS.find(([words]) => words.test(notes.join(" ")));
  assert.equal(sink === null, way === "none");
  return way;
}

test("a dialog is better than storage that has room, that than a download, and memory is the last", async () => {
  const all = { dialogs: true, room: 10 * GB, workers: true };
  assert.equal(await placeOf(GB, all), "dialog");
  assert.equal(await placeOf(GB, { ...all, dialogs: false }), "storage");
  assert.equal(await placeOf(GB, { workers: true }), "download");
  assert.equal(await placeOf(GB / 2, {}), "memory");
});

test("what may not fit into the storage is saved while it comes", async () => {
  const has = { room: GB, workers: true };
  assert.equal(await placeOf(0.99 * GB, has), "storage");
  assert.equal(await placeOf(GB, has), "download");
  assert.equal(await placeOf(null, has), "download");
  assert.equal(await placeOf(1, has, true), "download");
});

test("what fits nowhere is not received, and a stream goes where most room is", async () => {
  assert.equal(await placeOf(GB, {}), "none");
  assert.equal(await placeOf(2 * GB, { room: GB }), "none");
  assert.equal(await placeOf(null, {}), "memory");
  assert.equal(await placeOf(null, { room: GB }), "storage");
});
