import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import test from "node:test";

import { MemoryOutput, MOST } from "../../../flyx/web/memory_output.js";
import { RowSink } from "../../../flyx/web/row_sink.js";

const BLOCK = 1 << 20;
const FOLDER = { index: 0, path: "tree", kind: "directory", size: 0, mtime: 1.7e12 };
const SMALL = { index: 1, path: "tree/größer", kind: "file", size: 5, mtime: 1.7e12 };
const LARGE = { index: 2, path: "tree/large", kind: "file", size: 2 * BLOCK + 1, mtime: 1.7e12 };

/** Takes what is written, and remembers what it was told. */
class Taken {
  told = [];
  parts = [];

  async begin(...all) {
    this.told.push(["begin", ...all]);
  }

  async write(bytes) {
    this.parts.push(bytes);
  }

  async complete() {
    this.told.push("complete");
  }

  abort() {
    this.told.push("abort");
  }
}

function manifestOf(...entries) {
  return { id: "0", content: "files", entries, roots: [entries[0].path.split("/")[0]] };
}

async function begun(output, ...entries) {
  const sink = new RowSink(output);
  await sink.begin(manifestOf(...entries));
  return sink;
}

async function put(sink, entry, fill = entry.index) {
  await sink.open(entry, 0);
  for (let at = 0; at < entry.size; at += BLOCK) {
    await sink.write(entry, at, new Uint8Array(Math.min(BLOCK, entry.size - at)).fill(fill));
  }
}

/** What Python reads in an archive: "NAME SIZE FIRST-BYTE" of each member. */
function read(archive) {
  const file = path.join(fs.mkdtempSync(path.join(process.env.TMPDIR ?? os.tmpdir(), "flyx-row-")), "a.zip");
  fs.writeFileSync(file, archive);
  const program = `
import sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as archive:
    assert archive.testzip() is None
    for info in archive.infolist():
        print(info.filename, info.file_size, *archive.read(info)[:1])
`;
  return execFileSync("python3", ["-X", "utf8", "-c", program, file], { encoding: "utf8" }).trim().split("\n");
}

test("one file alone is the row as it is, of a size that is known", async () => {
  const output = new Taken();
  const entry = { ...LARGE, path: "large" };
  const sink = await begun(output, entry);
  await put(sink, entry, 7);
  await sink.finish();
  await sink.end(null);
  assert.deepEqual(output.told, [["begin", "large", entry.size], "complete"]);
  assert.deepEqual(Buffer.concat(output.parts), Buffer.alloc(entry.size, 7));
});

test("several are one archive, in pieces of a block or more", async () => {
  const output = new Taken();
  const sink = await begun(output, FOLDER, SMALL, LARGE);
  for (const entry of [FOLDER, SMALL, LARGE]) {
    await put(sink, entry);
    await sink.finish();
  }
  await sink.end(null);
  assert.deepEqual(output.told, [["begin", "tree.zip", null], "complete"]);
  assert.deepEqual(read(Buffer.concat(output.parts)), ["tree/ 0", "tree/größer 5 1", `tree/large ${LARGE.size} 2`]);
  assert.ok(output.parts.slice(0, -1).every(({ length }) => length >= BLOCK));
});

test("what was begun in vain is in no archive, whether dropped or begun anew", async () => {
  const output = new Taken();
  const sink = await begun(output, FOLDER, SMALL, LARGE);
  await put(sink, SMALL, 9);
  await sink.discard();
  await put(sink, LARGE, 9);
  await put(sink, LARGE, 4);
  await sink.finish();
  await sink.end(null);
  assert.deepEqual(read(Buffer.concat(output.parts)), [`tree/large ${LARGE.size} 4`]);
});

test("one file of which some was saved cannot begin anew, nor be dropped as if nothing was", async () => {
  const output = new Taken();
  const entry = { ...LARGE, path: "large" };
  const sink = await begun(output, entry);
  await put(sink, entry);
  await assert.rejects(sink.open(entry, 0), /cannot be taken back/);
  await assert.rejects(sink.discard(), /cannot be taken back/);
});

test("what breaks off is never complete", async () => {
  const output = new Taken();
  const sink = await begun(output, FOLDER, LARGE);
  await put(sink, LARGE);
  await sink.end(new Error("the sender has gone"));
  assert.equal(output.told.at(-1), "abort");
});

test("an output that fails at the very end is told to drop it", async () => {
  const output = new Taken();
  output.complete = async () => {
    throw new Error("the disk is full");
  };
  const sink = await begun(output, FOLDER);
  await put(sink, FOLDER);
  await sink.finish();
  await assert.rejects(sink.end(null), /the disk is full/);
  assert.equal(output.told.at(-1), "abort");
});

test("memory has all of it at the end, and takes no more than it may", async () => {
  const output = new MemoryOutput();
  await output.write(new Uint8Array([1, 2]));
  await output.write(new Uint8Array([3]));
  await output.complete();
  assert.deepEqual(new Uint8Array(await output.file.arrayBuffer()), new Uint8Array([1, 2, 3]));
  await assert.rejects(output.write({ length: MOST }), { name: "QuotaExceededError", message: /at most 500 MB/ });
});
