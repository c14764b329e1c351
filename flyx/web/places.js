/**
 * Where what is offered can go in this browser, and what a person should know of that beforehand.
 *
 *     a file or folder of the person's choice    where there is a dialog for it: Chromium on a computer
 *     the browser's storage, then a download     where it has room for all of it, by what the browser says
 *     a download while it comes                  where there are service workers: a private window of Firefox
 *     memory, then a download                    else, up to MOST: who blocks cookies has neither
 *
 * Chromium says that a page has 10 GiB more, whatever it has; when that was not true, `isFull` is.
 *
 * @module
 */

import { isArchive, nameFor } from "./downloads.js";
import { KeptSink, roomFor } from "./kept_sink.js";
import { MemoryOutput, MOST } from "./memory_output.js";
import { canPick, pick } from "./picked_sink.js";
import { RowSink } from "./row_sink.js";
import { streamedOutput } from "./streamed_output.js";
import { sizeText } from "./texts.js";
import { visible } from "./view.js";

/**
 * @typedef {object} Place
 * @property {string} action What to click on.
 * @property {string[]} notes
 * @property {(() => Promise<import("./flyx.js").Sink | null>) | null} sink Called when that is clicked on; null
 *     if the person would rather not. There is none if it cannot be received here.
 */

/**
 * @param {import("./flyx.js").Manifest} manifest
 * @param {boolean} isFull The storage had no room for it after all.
 * @returns {Promise<Place>}
 */
export async function placeFor(manifest, isFull) {
  if (canPick()) return { action: "Save as …", notes: [], sink: () => pick(manifest) };
  const { content, bytes, entries } = manifest;
  // What the storage and an archive have of their own for each entry and block.
  const needed = content === "stream" ? Infinity : bytes + bytes / 1000 + 1000 * entries.length;
  const room = isFull ? 0 : await roomFor(manifest);
  if (room >= needed) return kept(manifest);
  const output = await streamedOutput();
  if (output) return streamed(manifest, output);
  if (content === "stream" && room > MOST) return kept(manifest);
  if (content === "stream" || bytes <= MOST) return inMemory(manifest);
  const most = `This window can take at most ${sizeText(Math.max(room, MOST))}.`;
  const advice = "Open the link in a window that is not private, or in another browser, or use the program flyx.";
  return { action: "Save", notes: [most, advice], sink: null };
}

function kept(manifest) {
  const note = "While it comes it is kept in the browser, which needs room for it twice.";
  return { action: "Save", notes: [...named(manifest), note], sink: async () => new KeptSink() };
}

function streamed(manifest, output) {
  const note = "The browser saves it while it comes. If that breaks off, it has to begin anew.";
  return { action: "Save", notes: [...named(manifest), note], sink: async () => new RowSink(output) };
}

function inMemory(manifest) {
  const note = `While it comes it is kept in memory: this window can take at most ${sizeText(MOST)}.`;
  return { action: "Save", notes: [...named(manifest), note], sink: async () => new RowSink(new MemoryOutput()) };
}

/** What a download is called, if that is not what the person is told of it. */
function named(manifest) {
  const name = nameFor(manifest);
  if (isArchive(manifest)) return [`It is saved as ${visible(name)}, an archive of all of it.`];
  if (name === manifest.entries[0].path) return [];
  return [`It is saved as ${visible(name)}: browsers refuse the other name.`];
}
