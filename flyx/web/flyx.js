/**
 * flyx in a browser: receive from, and send to, whoever has `flyx` or another such page.
 *
 * No DOM in here, nor in what this imports: a page gives files to read and a place to write to, and shows the
 * events. It speaks as the command line does (flyx/docs/protocol.md).
 *
 *     const done = await receive({ server: location.origin, code, ask, on, signal });
 *     const done = await send({ server: location.origin, entries, on, signal });
 *
 * Both tell what happens through `on`, one Event after another, and end as their promise does: with what is
 * confirmed by both ends, or with a FlyxError. An AbortSignal ends them early; the other side is told why.
 *
 * @module
 */

import { FlyxError } from "./errors.js";

/**
 * What is offered, complete and judged.
 *
 * @typedef {object} Manifest
 * @property {string} id SHA-256 in hex: the same for the same entries, with all that they say. What a sink
 *     keeps for another day is kept under it.
 * @property {"files" | "stream" | "text"} content A stream is one file whose size nobody knows: its `size` is
 *     0. A text is shown by the event `text`; no sink ever sees one.
 * @property {readonly Entry[]} entries What the receiver can have, in the order in which it comes.
 * @property {readonly string[]} roots The first parts of the paths, each once, in order.
 * @property {number} files How many of the entries are files.
 * @property {number} bytes In all of these; 0 of a stream.
 * @property {readonly { path: string, reason: string }[]} absent What will not come, and why: left out by the
 *     sender, or nothing that a browser can have (links). `path` as the sender has it: show it as text, never
 *     as markup.
 */

/**
 * A file or a directory that is to come.
 *
 * @typedef {object} Entry
 * @property {number} index In the manifest of the sender, which may have entries that do not come to us.
 * @property {"file" | "directory"} kind
 * @property {string} path Relative, its parts joined by "/". Safe to create: no part is empty, "." or "..",
 *     has controls or what Windows forbids, ends with a dot or blank, is a device, or is longer than 255
 *     bytes; no two entries have paths that differ in case or Unicode form alone, and none is both file and
 *     directory.
 * @property {string} told The path as the sender has it, for people to read; what is no UTF-8 is U+FFFD.
 * @property {number} size Bytes.
 * @property {number} mtime Milliseconds since 1970; may have a fraction.
 */

/**
 * What a sink has of a file from an earlier try.
 *
 * @typedef {object} Held
 * @property {number} index Of the entry.
 * @property {readonly Uint8Array[]} digests Of its blocks, from the first on, as `write` was told them: those
 *     that are certainly there. Of a file that is complete, all.
 * @property {boolean} complete It is there under its final name: `finish` has been done. Nothing of it will
 *     come.
 */

/**
 * Where files go to; the page's own. Its methods are called one at a time: each waits for the promise of the
 * one before, and whatever they take, the sender waits: no more than 16 MiB are in memory. What they throw
 * ends the transfer with `storage_error`, and a QuotaExceededError with `no_space`.
 *
 *     begin -> (open -> write* -> finish | discard)* -> end
 *
 * Files come one after another, in the order of the manifest; each is opened, also an empty one. Directories
 * come to `open` and `finish` as well, in their order, without `write`. When a connection breaks and another
 * goes on, the sink does not notice.
 *
 * @typedef {object} Sink
 * @property {(manifest: Manifest) => Promise<readonly Held[] | void>} begin First, once. What it has already
 *     of these entries, in their order.
 * @property {(entry: Entry, offset: number) => Promise<void>} open The next bytes are for this entry, from
 *     here on: 0, or, if the sink has a part, what follows that. Once more with 0 if the part is of no use,
 *     because the file is another one by now: it starts anew. A sink that cannot go back rejects that.
 * @property {(entry: Entry, offset: number, bytes: Uint8Array, digest: Uint8Array) => Promise<void>} write
 *     Append a block, which has been verified: of 1 MiB, the last one shorter, those of a stream of any
 *     length up to that. `digest` is its SHA-256, for a Held of another day. The bytes are the sink's to keep
 *     or transfer.
 * @property {(entry: Entry, digest: Uint8Array) => Promise<string | void>} finish All of it is there and
 *     verified: put it under its final name. Returns the name that it has in the end, if that is another one
 *     than `path`. `digest` is over the digests of its blocks (flyx/transfer/digests.py).
 * @property {(entry: Entry) => Promise<void>} discard The sender cannot go on with it: drop what there is.
 * @property {(error: FlyxError | null) => Promise<void>} end Last, once, whatever happened after `begin` was
 *     called: null if all is complete (the sender is told after this has been done), else why not. A sink
 *     that can keep what it has for another day keeps it then.
 */

/**
 * What a sender reads: a File with its path will do, see `entryOf`.
 *
 * @typedef {object} Source
 * @property {string} path Relative, its parts joined by "/".
 * @property {"file" | "directory"} [kind] A file if nothing is said.
 * @property {number} [size] Bytes; of a file.
 * @property {number} [mtime] Milliseconds since 1970.
 * @property {(offset: number, length: number) => Promise<ArrayBuffer | Uint8Array>} [read] Exactly these
 *     bytes of a file; fewer, or a rejection, if the file is not what it was. Called for several receivers at
 *     a time. An ArrayBuffer is emptied once it is of no use; of a Uint8Array nothing changes.
 * @property {() => Promise<{ size: number, mtime: number }>} [look] What size and time are now, if that can
 *     be asked anew (a FileSystemFileHandle can; a File cannot): a file that has changed is not delivered.
 */

/**
 * What happens; the names and fields are those of `flyx --json` (flyx/docs/scripting.md), without `time`.
 * Ignore events and fields that you do not know.
 *
 * | event | fields |
 * |---|---|
 * | `room` | `room_id`, `server`; of a sender also `code` (ROOM-word-word), `words` ("word-word"; "" if open) and `url` (what the other side opens or pastes) |
 * | `peer` | `peer` (1, 2, ...), `state`: `joined`, `paired`, `silent` (nothing was heard of it for `seconds`; here alone), `heard` (again), `lost` (another connection is being made), `done`, `failed`; with `lost` and `failed` `code`, `message` |
 * | `path` | `peer`, `local`, `remote` (`host`, `srflx`, `prflx`, `relay`, or null), `family` (4, 6 or null), `rtt` in seconds; again when it changes |
 * | `manifest` | `manifest` (a Manifest), `manifest_id`, `content`, `files`, `bytes` |
 * | `resume` | `peer`, `files` and `bytes` that are there from an earlier try |
 * | `progress` | `peer`, `bytes` verified at the receiver, `total` (null of a stream), at most ten times a second |
 * | `file` | `peer`, `path`, `index`; at the receiver `saved_as`, `digest`, `algorithm`; `error` if it could not be had |
 * | `text` | `peer`, `text` |
 * | `done` | `peer`, `files`, `bytes`, `resumed`, `missing`, `seconds`, `digest`, `algorithm` |
 * | `notice` | `message` |
 * | `error` | `code`, `message`, `hint` (or null): the last one of what failed; the promise rejects with the same |
 *
 * @typedef {{ event: string, [field: string]: any }} Event
 */

/**
 * @typedef {object} Offer
 * @property {Manifest} manifest
 * @property {boolean} verified The sender has proved to know the words. False: its code has none, and only
 *     the server says who it is; say so when you ask.
 */

/**
 * @typedef {object} ReceiveOptions
 * @property {string} server URL of the server: `location.origin`.
 * @property {string} code What the person typed or pasted, or `location.href`: see parseInvitation.
 * @property {(offer: Offer) => Promise<Sink | null>} ask Asks the person; resolves to where it goes, null to
 *     decline. Called once; not for a text that is verified. Take all the time you need: the sender waits.
 * @property {(count: number) => Promise<string>} [askWords] Asks for the words if the code has none and the
 *     sender wants some: so many of the list; 0 for words of its own.
 * @property {(event: Event) => void} on
 * @property {AbortSignal} [signal]
 * @property {number} [reconnect] Seconds for which a lost connection is made anew; 7200.
 * @property {typeof globalThis.WebSocket} [WebSocket] In the place of the browser's, where there is none.
 * @property {typeof globalThis.RTCPeerConnection} [RTCPeerConnection] The same.
 */

/**
 * @typedef {object} SendOptions
 * @property {string} server URL of the server: `location.origin`.
 * @property {readonly Source[]} [entries] Read anew for each receiver.
 * @property {string} [text] In their place: a text of at most 1 MiB, for a person to read.
 * @property {string} [words] Words of the person's own; drawn if there are none.
 * @property {boolean} [open] No words at all.
 * @property {number} [receivers] How many must have everything; 1. 0 for no end but `signal`.
 * @property {string} [apiToken] What the server wants of those who create rooms.
 * @property {(event: Event) => void} on
 * @property {AbortSignal} [signal]
 * @property {number} [reconnect] Seconds for which a lost connection is made anew; 7200.
 * @property {typeof globalThis.WebSocket} [WebSocket] In the place of the browser's, where there is none.
 * @property {typeof globalThis.RTCPeerConnection} [RTCPeerConnection] The same.
 */

/**
 * @typedef {object} Done
 * @property {number} files
 * @property {number} bytes
 * @property {number} missing How many entries could not be had.
 * @property {string} digest Of all, in hex: the same on both sides.
 */

export { FlyxError };
export { parseInvitation } from "./codes.js";
export { receive } from "./receive.js";
export { send } from "./send.js";

/**
 * Return a Source that reads a File (or Blob).
 *
 * @param {File} file
 * @param {string} [path] If it has another one than `webkitRelativePath` or its name.
 * @returns {Source}
 */
export function entryOf(file, path = file.webkitRelativePath || file.name) {
  return {
    path,
    size: file.size,
    mtime: file.lastModified,
    read: (offset, length) => file.slice(offset, offset + length).arrayBuffer(),
  };
}
