/**
 * A worker that writes what is received into the browser's own storage of this page (OPFS): one file as it is,
 * several as one ZIP archive. What is verified stays there when the page is closed, and another try goes on
 * from it. kept_sink.js calls its methods, one at a time.
 *
 * Below flyx/ID/, ID being that of the manifest, are `content` and `journal`. The journal is a row of records,
 * each written only when what it tells of is on the disk:
 *
 *     kind u8 | 0 u24 | index u32 | crc u32 | length u32 | digest 32 bytes
 *
 *     OPENED    the entry begins; its place in the content is in the first 8 bytes of the digest
 *     BLOCK     so many more bytes of it, of this digest; crc is of all of it so far
 *     FINISHED  it is complete
 *     DROPPED   it does not come after all; the next one takes its place
 *
 * @module
 */

import { free } from "./bytes.js";
import { archiveEnd, crc32, directoryEntry, localHeader } from "./zip.js";

const RECORD = 48;
const [OPENED, BLOCK, FINISHED, DROPPED] = [1, 2, 3, 4];

/** How much may be lost with the power: to sync takes time. */
const UNSYNCED_BYTES = 32 << 20;
const UNSYNCED_RECORDS = 1000;

/** An entry as it is here: a Member of zip.js, `written` bytes of it from `start` on, and their digests. */
let current = null;
const finished = [];

let [content, journal, isArchive] = [null, null, false];
/** Where the next bytes go. */
let [end, journalEnd] = [0, 0];
/** What the journal is to be told when the content is synced, and how many bytes of that are not. */
let [waiting, unsynced] = [[], 0];

const methods = {
  /**
   * Open what is here under this id; return the indexes of its entries, of which recall() has to know more.
   *
   * @param {{ id: string, archive: boolean, anew: boolean }} what anew: nothing that is here is of use.
   */
  async begin({ id, archive, anew }) {
    isArchive = archive;
    const root = await navigator.storage.getDirectory();
    const all = await root.getDirectoryHandle("flyx", { create: true });
    const directory = await all.getDirectoryHandle(id, { create: true });
    const opened = async (name) =>
      (await directory.getFileHandle(name, { create: true })).createSyncAccessHandle();
    content = await opened("content");
    journal = await opened("journal");
    if (anew) startAnew();
    return [...new Set(recordsOf(journal).map(({ index }) => index))];
  },

  /** Take up what the journal tells of these entries; return what is held of them. */
  recall(entries) {
    const known = new Map(entries.map((entry) => [entry.index, entry]));
    for (const record of recordsOf(journal)) replay(record, known);
    if (content.getSize() < end) {
      // The browser has lost some of it.
      startAnew();
      return [];
    }
    journalEnd = Math.floor(journal.getSize() / RECORD) * RECORD;
    journal.truncate(journalEnd);
    content.truncate(end);
    const members = current ? [...finished, current] : finished;
    return members.map(({ index, digests }) => ({ index, digests, complete: current?.index !== index }));
  },

  open(entry, offset) {
    if (current?.index === entry.index && offset === current.written) return;
    if (offset) throw new Error("an entry goes on where nothing of it is");
    if (current) end = current.at;
    current = memberOf(entry, end);
    content.truncate(end);
    if (isArchive) put(localHeader(current));
    const place = new Uint8Array(32);
    new DataView(place.buffer).setBigUint64(0, BigInt(current.at));
    note(OPENED, { digest: place });
  },

  write(bytes, digest) {
    put(bytes);
    if (isArchive) current.crc = crc32(bytes, current.crc);
    current.written += bytes.length;
    current.digests.push(digest);
    note(BLOCK, { length: bytes.length, digest });
    free(bytes.buffer);
  },

  finish() {
    if (isArchive) writeAll(content, localHeader(current), current.at);
    note(FINISHED, {});
    finished.push(current);
    current = null;
  },

  discard() {
    note(DROPPED, {});
    end = current.at;
    current = null;
  },

  /** All is here: complete the archive, and let go of the files. */
  complete() {
    content.truncate(end);
    if (isArchive) {
      const at = end;
      for (const member of finished) put(directoryEntry(member));
      put(archiveEnd(finished.length, end - at, at));
    }
    sync();
    // Another try would begin anew: it is not unfinished.
    journal.truncate(0);
    [waiting, journalEnd] = [[], 0];
    close();
  },

  /** Keep what is here for another day, and let go of the files. */
  close,
};

function startAnew() {
  content.truncate(0);
  journal.truncate(0);
  [current, end, journalEnd] = [null, 0, 0];
  finished.length = 0;
}

function recordsOf(handle) {
  const bytes = new Uint8Array(handle.getSize());
  handle.read(bytes, { at: 0 });
  const view = new DataView(bytes.buffer);
  const records = [];
  for (let at = 0; at + RECORD <= bytes.length; at += RECORD) {
    records.push({
      kind: view.getUint8(at),
      index: view.getUint32(at + 4),
      crc: view.getUint32(at + 8),
      length: view.getUint32(at + 12),
      digest: bytes.slice(at + 16, at + RECORD),
    });
  }
  return records;
}

function replay({ kind, index, crc, length, digest }, known) {
  if (kind === OPENED) {
    current = memberOf(known.get(index), Number(new DataView(digest.buffer).getBigUint64(0)));
    end = current.start;
  } else if (kind === BLOCK) {
    current.crc = crc;
    current.written += length;
    current.digests.push(digest);
    end = current.start + current.written;
  } else if (kind === FINISHED) {
    finished.push(current);
    current = null;
  } else {
    end = current.at;
    current = null;
  }
}

function memberOf({ index, path, kind, size, mtime }, at) {
  const member = { index, path, isDirectory: kind === "directory", size, mtime, crc: 0, at };
  const start = at + (isArchive ? localHeader(member).length : 0);
  return { ...member, start, written: 0, digests: [] };
}

/** Append to the content. */
function put(bytes) {
  writeAll(content, bytes, end);
  end += bytes.length;
  unsynced += bytes.length;
}

/** Some browsers write less than they were asked to when there is no room, and say no more about it. */
function writeAll(handle, bytes, at) {
  if (handle.write(bytes, { at }) !== bytes.length) {
    throw new DOMException("the browser gives this page no more room", "QuotaExceededError");
  }
}

function note(kind, { length = 0, digest = null }) {
  const record = new Uint8Array(RECORD);
  const view = new DataView(record.buffer);
  view.setUint8(0, kind);
  view.setUint32(4, current.index);
  view.setUint32(8, current.crc);
  view.setUint32(12, length);
  if (digest) record.set(digest, 16);
  waiting.push(record);
  if (unsynced >= UNSYNCED_BYTES || waiting.length >= UNSYNCED_RECORDS) sync();
}

function sync() {
  if (!waiting.length && !unsynced) return;
  content.flush();
  unsynced = 0;
  const records = new Uint8Array(waiting.length * RECORD);
  waiting.forEach((record, place) => records.set(record, place * RECORD));
  waiting = [];
  writeAll(journal, records, journalEnd);
  journalEnd += records.length;
  journal.flush();
}

function close() {
  try {
    sync();
  } finally {
    content.close();
    journal.close();
  }
}

onmessage = async ({ data: [number, method, ...parameters] }) => {
  try {
    postMessage([number, await methods[method](...parameters)]);
  } catch ({ name, message }) {
    postMessage([number, null, { name, message }]);
  }
};
