import assert from "node:assert/strict";
import test from "node:test";

import { Pace } from "../../../flyx/web/pace.js";
import { amountText, downloadName, durationText, freeName, isHidden, pathText, sizeText } from "../../../flyx/web/texts.js";

test("sizes have three digits, as on the command line", () => {
  const expected = [
    [0, "0 bytes"], [1, "1 byte"], [999, "999 bytes"], [1000, "1.00 kB"], [9994, "9.99 kB"], [9995, "10.0 kB"],
    [99_949, "99.9 kB"], [99_950, "100 kB"], [999_499, "999 kB"], [999_500, "1.00 MB"], [1e9, "1.00 GB"],
    [2 ** 53, "9.01 PB"], [1e22, "10,000 EB"],
  ];
  for (const [size, text] of expected) assert.equal(sizeText(size), text);
});

test("amounts count files, and folders only where there are no files", () => {
  assert.equal(amountText({ files: 1, directories: 0, bytes: 1 }), "1 file, 1 byte");
  assert.equal(amountText({ files: 1200, directories: 3, bytes: 1e6 }), "1,200 files, 1.00 MB");
  assert.equal(amountText({ files: 0, directories: 1, bytes: 0 }), "1 folder, 0 bytes");
});

test("times are in two units at most", () => {
  const expected = [[0.25, "0.3 s"], [7, "7 s"], [59.4, "59 s"], [60, "1 min 0 s"], [3599, "59 min 59 s"], [3661, "1 h 1 min"]];
  for (const [seconds, text] of expected) assert.equal(durationText(seconds), text);
});

test("a path is direct or through a relay, and takes a time", () => {
  assert.equal(pathText({ local: "host", remote: "host", rtt: 0.0018 }), "directly over the local network, 1.8 ms there and back");
  assert.match(pathText({ local: "srflx", remote: "host", rtt: null }), /^directly$/);
  assert.match(pathText({ local: "host", remote: "relay" }), /relay/);
});

test("a name for a download begins with no dot and has 240 bytes at most", () => {
  assert.equal(downloadName("notes.txt"), "notes.txt");
  assert.equal(downloadName(".bashrc"), "bashrc");
  assert.equal(downloadName("..."), "file");
  assert.equal(downloadName(`${"é".repeat(200)}.tar`), `${"é".repeat(118)}.tar`);
  assert.equal(downloadName(`a.${"b".repeat(300)}`), `a.${"b".repeat(238)}`);
  for (const name of ["😀".repeat(80), `${"x".repeat(239)}é.jpg`]) {
    assert.ok(new TextEncoder().encode(downloadName(name)).length <= 240);
    assert.ok(downloadName(name).isWellFormed?.() ?? true);
  }
});

test("a name that is taken gets a number before its extension", () => {
  const taken = new Set(["photos", "notes.txt", "notes (2).txt", ".env"]);
  const free = (name) => freeName(name, (tried) => taken.has(tried));
  assert.deepEqual(["photos", "notes.txt", "other", ".env"].map(free), ["photos (2)", "notes (3).txt", "other", ".env (2)"]);
});

test("a name is hidden wherever in its path the dot is", () => {
  assert.deepEqual([".a", "a/.b/c", "a.b", "a/b.c"].map(isHidden), [true, true, false, false]);
});

test("speed is that of the last seconds, and what was there before is none", () => {
  const pace = new Pace(1000, 0);
  assert.equal(pace.speed(0.4), null);
  pace.advance(1500, 1);
  assert.equal(pace.speed(1), 500);
  assert.equal(pace.remaining(2000, 1), 1);
  assert.equal(pace.remaining(null, 1), null);
  for (let second = 2; second <= 60; second += 1) pace.advance(1500 + second * 100, second);
  assert.ok(Math.abs(pace.speed(60) - 100) < 1);
});

test("what begins anew has no speed at first", () => {
  const pace = new Pace(0, 0);
  pace.advance(1000, 1);
  pace.advance(0, 2);
  assert.equal(pace.speed(2), null);
});
