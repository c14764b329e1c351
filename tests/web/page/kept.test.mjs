import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import test from "node:test";

import { startWorker } from "./storage.mjs";

const BLOCK = 1 << 20;
const ID = "0".repeat(64);

const ENTRIES = [
  { index: 0, path: "tree", kind: "directory", size: 0, mtime: 1.7e12 },
  { index: 2, path: "tree/empty", kind: "file", size: 0, mtime: 1.7e12 },
  { index: 3, path: "tree/one", kind: "file", size: 1, mtime: 1.6e12 },
  { index: 5, path: "tree/größer", kind: "file", size: 3 * BLOCK + 17, mtime: 1.5e12 },
  { index: 6, path: "tree/last", kind: "file", size: BLOCK, mtime: 1.4e12 },
];

/** What is in an entry: other bytes in each, and in each block of it. */
function contentOf({ index, size }) {
  const bytes = Buffer.alloc(size);
  for (let at = 0; at < size; at += 997) bytes[at] = (at * 31 + index * 7 + 1) & 0xff;
  return bytes;
}

function blocksOf(entry) {
  const content = contentOf(entry);
  const blocks = [];
  for (let at = 0; at < content.length; at += BLOCK) blocks.push(new Uint8Array(content.subarray(at, at + BLOCK)));
  return blocks;
}

function digestOf(block) {
  return new Uint8Array(createHash("sha256").update(block).digest());
}

function temporary() {
  return fs.mkdtempSync(path.join(process.env.TMPDIR ?? os.tmpdir(), "flyx-kept-"));
}

/** Take up what is held and receive the rest, `steps` calls of it; all if there are fewer. Returns if it is all. */
async function receive(directory, { entries = ENTRIES, archive = true, steps = Infinity } = {}) {
  const call = await startWorker(directory);
  const known = new Set(await call("begin", { id: ID, archive, anew: false }));
  const held = await call("recall", entries.filter(({ index }) => known.has(index)));
  for (const { index, digests, complete } of held) {
    const blocks = blocksOf(entries.find((entry) => entry.index === index));
    digests.forEach((digest, place) => assert.deepEqual(digest, digestOf(blocks[place])));
    if (complete) assert.equal(digests.length, blocks.length);
  }
  const step = async (...what) => {
    if (steps <= 0) throw new Error("broken off");
    steps -= 1;
    await call(...what);
  };
  try {
    for (const entry of entries) {
      const { digests = [], complete = false } = held.find(({ index }) => index === entry.index) ?? {};
      if (complete) continue;
      await step("open", entry, Math.min(digests.length * BLOCK, entry.size));
      for (const block of blocksOf(entry).slice(digests.length)) await step("write", block, digestOf(block));
      await step("finish");
    }
    await step("complete");
    return { isAll: true, held };
  } catch (error) {
    if (error.message !== "broken off") throw error;
    return { isAll: false, held, call };
  }
}

test("whatever breaks it off, another try goes on and makes the same archive", async () => {
  const whole = temporary();
  await receive(whole);
  const expected = fs.readFileSync(path.join(whole, "flyx", ID, "content"));
  for (let steps = 0; steps < 17; steps += 1) {
    for (const isKept of [true, false]) {
      const directory = temporary();
      const { isAll, call } = await receive(directory, { steps });
      assert.equal(isAll, false);
      // Or else it is killed: what is not synced is not in the journal.
      if (isKept) await call("close");
      const again = await receive(directory);
      assert.equal(again.isAll, true, `after ${steps} steps`);
      if (isKept && steps) assert.notEqual(again.held.length, 0, `after ${steps} steps nothing was held`);
      assert.deepEqual(fs.readFileSync(path.join(directory, "flyx", ID, "content")), expected);
      fs.rmSync(directory, { recursive: true });
    }
  }
  fs.rmSync(whole, { recursive: true });
});

test("one file alone is kept as it is", async () => {
  const directory = temporary();
  const entries = [ENTRIES[3]];
  const { call } = await receive(directory, { entries, archive: false, steps: 3 });
  await call("close");
  const { held, isAll } = await receive(directory, { entries, archive: false });
  assert.equal(held[0].digests.length, 2);
  assert.equal(isAll, true);
  assert.deepEqual(fs.readFileSync(path.join(directory, "flyx", ID, "content")), contentOf(ENTRIES[3]));
  fs.rmSync(directory, { recursive: true });
});

test("a block that is written is no longer in memory", async () => {
  const call = await startWorker(temporary());
  await call("begin", { id: ID, archive: true, anew: false });
  await call("recall", []);
  await call("open", ENTRIES[4], 0);
  const [block] = blocksOf(ENTRIES[4]);
  await call("write", block, digestOf(block));
  assert.equal(block.length, 0);
});

test("what is complete is no longer unfinished", async () => {
  const directory = temporary();
  await receive(directory);
  assert.equal(fs.statSync(path.join(directory, "flyx", ID, "journal")).size, 0);
  fs.rmSync(directory, { recursive: true });
});

test("content that the storage has lost is not believed to be there", async () => {
  const directory = temporary();
  const { call } = await receive(directory, { steps: 10 });
  await call("close");
  fs.truncateSync(path.join(directory, "flyx", ID, "content"), BLOCK);
  const { held, isAll } = await receive(directory);
  assert.deepEqual(held, []);
  assert.equal(isAll, true);
  fs.rmSync(directory, { recursive: true });
});

test("what cannot be had leaves no trace in the archive, whether begun or taken up again", async () => {
  const directory = temporary();
  const call = await startWorker(directory);
  await call("begin", { id: ID, archive: true, anew: false });
  await call("recall", []);
  const [block] = blocksOf(ENTRIES[3]);
  await call("open", ENTRIES[0], 0);
  await call("finish");
  await call("open", ENTRIES[3], 0);
  await call("write", block, digestOf(block));
  await call("discard");
  await call("open", ENTRIES[4], 0);
  for (const each of blocksOf(ENTRIES[4])) await call("write", each, digestOf(each));
  await call("finish");
  await call("complete");
  const other = temporary();
  await receive(other, { entries: [ENTRIES[0], ENTRIES[4]] });
  const [left, right] = [directory, other].map((each) => fs.readFileSync(path.join(each, "flyx", ID, "content")));
  assert.deepEqual(left, right);
});

test("an entry that begins anew begins where it did", async () => {
  const directory = temporary();
  const { call } = await receive(directory, { steps: 7 });
  await call("open", ENTRIES[3], 0);
  for (const each of blocksOf(ENTRIES[3])) await call("write", each, digestOf(each));
  await call("finish");
  await call("close");
  const { held } = await receive(directory);
  assert.deepEqual(held.map(({ complete }) => complete), [true, true, true, true]);
  const whole = temporary();
  await receive(whole);
  const [left, right] = [directory, whole].map((each) => fs.readFileSync(path.join(each, "flyx", ID, "content")));
  assert.deepEqual(left, right);
});

test("a write that does nothing is no room", async () => {
  const directory = temporary();
  const call = await startWorker(directory, { bytes: BLOCK + 1000 });
  await call("begin", { id: ID, archive: false, anew: false });
  await call("recall", []);
  await call("open", ENTRIES[3], 0);
  const [first, second] = blocksOf(ENTRIES[3]);
  await call("write", first, digestOf(first));
  await assert.rejects(call("write", second, digestOf(second)), { name: "QuotaExceededError" });
});

test("a stream begins anew", async () => {
  const directory = temporary();
  const entries = [ENTRIES[3]];
  const { call } = await receive(directory, { entries, archive: false, steps: 3 });
  await call("close");
  const again = await startWorker(directory);
  assert.deepEqual(await again("begin", { id: ID, archive: false, anew: true }), []);
  assert.deepEqual(await again("recall", []), []);
});
