/**
 * The manifest that arrives, message by message, as flyx/transfer/manifest_inbox.py takes it; and what of it
 * a browser can have.
 *
 * @module
 */

import { pathSize, readable } from "./bytes.js";
import { protocolError } from "./errors.js";
import * as leftOut from "./left_out.js";
import { MAX_FILE_SIZE, MAX_PATHS_SIZE, MAX_ROOTS_SIZE, MAX_TEXT_SIZE, Rows } from "./manifest.js";
import { pathTold, rowsOf } from "./messages.js";
import { Places } from "./names.js";

/** @typedef {import("./manifest.js").Row} Row */
/** @typedef {import("./flyx.js").Manifest} Manifest */
/** @typedef {import("./flyx.js").Entry} Entry */

/** Entries left out that a sender names; more are only counted. */
const MAX_TOLD = 1_000;

/**
 * What was offered, as it was told and as it is here.
 *
 * @typedef {object} Offered
 * @property {Manifest} manifest
 * @property {readonly Row[]} rows All entries of the sender.
 * @property {Map<number, Entry>} entries Those that we can have, by index.
 * @property {[number, string][]} leftOut Index and code of all others.
 * @property {number} failures How many the sender leaves out that were meant to be sent.
 */

/** Puts a manifest together, and makes sure that it is the one that was announced. */
export class ManifestInbox {
  /** What was announced; null before the first message. @type {any} */
  start = null;
  /** @type {string[]} */
  #roots = [];
  #rootsSize = 0;
  #rows = new Rows();
  /** @type {[string, string][]} */
  #absent = [];

  /** Take a message of the manifest; return what is offered with the last one. @param {any} message */
  take(message) {
    if (message.type === "manifest_start") this.#begin(message);
    else if (message.type === "roots") this.#takeRoots(message.names);
    else if (message.type === "manifest") this.#takePiece(message);
    else if (message.type === "absent") this.#takeAbsent(message.entries);
    else if (message.type === "manifest_end") return this.#end();
    else throw protocolError(`${message.type} out of place`);
    return null;
  }

  /** @param {any} start */
  #begin(start) {
    if (this.start) throw protocolError("a second manifest");
    if (start.holes > start.bytes) throw protocolError("more bytes in holes than in all");
    const { entries, files, roots, holes, failures, others, content } = start;
    const isSingle = [entries, files, roots, holes, failures, others].join() === "1,1,1,0,0,0";
    if (content !== "files" && !isSingle) throw protocolError(`more than one ${content}`);
    const most = { files: MAX_FILE_SIZE, stream: 0, text: MAX_TEXT_SIZE }[
      /** @type {Manifest["content"]} */ (content)
    ];
    if (start.bytes > most) throw protocolError(`a ${content} of ${start.bytes} bytes`);
    this.start = start;
  }

  /** @param {any[]} names */
  #takeRoots(names) {
    if (!this.start || this.#roots.length + names.length > this.start.roots) {
      throw protocolError("roots that were not announced");
    }
    for (const name of names.map(pathTold)) {
      this.#rootsSize += pathSize(name);
      this.#roots.push(name);
    }
    if (this.#rootsSize > MAX_ROOTS_SIZE) throw protocolError("roots that are too long in all");
  }

  #announced() {
    if (!this.start || this.#roots.length !== this.start.roots) {
      throw protocolError("a manifest that goes on before its roots");
    }
    return this.start;
  }

  /** @param {any} piece */
  #takePiece(piece) {
    const start = this.#announced();
    const rows = this.#rows;
    if (piece.first !== rows.list.length || piece.first + piece.entries.length > start.entries) {
      throw protocolError("entries out of place");
    }
    for (const row of rowsOf(piece)) {
      if (row.kind === "hard_link" && rows.list[row.sameAs]?.kind !== "file") {
        throw protocolError("a hard link to what is no file before it");
      }
      if (rows.bytes + row.size > start.bytes) throw protocolError("more bytes than were announced");
      const roots = rows.roots.length;
      rows.append(row);
      if (rows.pathsSize > MAX_PATHS_SIZE) throw protocolError("paths that are too long in all");
      if (rows.roots.length > roots && rows.roots[roots] !== this.#roots[roots]) {
        throw protocolError("an entry below a root that was not announced");
      }
    }
  }

  /** @param {[any, string][]} entries */
  #takeAbsent(entries) {
    const { failures, others } = this.#announced();
    if (this.#absent.length + entries.length > Math.min(MAX_TOLD, failures + others)) {
      throw protocolError("more is left out than was announced");
    }
    for (const [path, code] of entries) this.#absent.push([pathTold(path), code]);
  }

  /** @returns {Offered} */
  #end() {
    const start = this.#announced();
    const rows = this.#rows;
    const { content, failures } = start;
    const id = rows.id(content);
    const announced = [start.manifest_id, start.files, start.bytes, start.entries, start.roots];
    const counted = [id, rows.files, rows.bytes, rows.list.length, rows.roots.length];
    if (announced.join() !== counted.join()) throw protocolError("the manifest is not the one announced");
    if (content !== "files" && rows.list[0].path !== rows.roots[0])
      throw protocolError(`a ${content} in a directory`);
    const { entries, left } = judge(rows.list);
    const kept = [...entries.values()];
    const manifest = {
      id,
      content,
      entries: kept,
      roots: [...new Set(kept.map(({ path }) => path.split("/", 1)[0]))],
      files: rows.files,
      bytes: rows.bytes,
      absent: [
        ...this.#absent.map(([path, code]) => ({ path: readable(path), reason: leftOut.reason(code) })),
        ...left.map(([index, code]) => ({
          path: readable(rows.list[index].path),
          reason:
            rows.list[index].kind === "hard_link" ? "it is another name of a file" : leftOut.reason(code),
        })),
      ],
    };
    return { manifest, rows: rows.list, entries, leftOut: left, failures };
  }
}

/** Find out what a browser can have of these entries, and where. @param {readonly Row[]} rows */
function judge(rows) {
  const places = new Places();
  /** @type {Map<number, Entry>} */
  const entries = new Map();
  /** @type {[number, string][]} */
  const left = [];
  rows.forEach(({ path: told, kind, size, mtimeUs }, index) => {
    // Of all, since a name that leads out is refused whatever bears it.
    const path = places.find(told, kind === "directory");
    if (kind === "file" || kind === "directory") {
      entries.set(index, { index, kind, path, told: readable(told), size, mtime: mtimeUs / 1000 });
    } else {
      left.push([index, kind === "hard_link" ? leftOut.NOT_WRITTEN : leftOut.NO_LINKS]);
    }
  });
  return { entries, left };
}
