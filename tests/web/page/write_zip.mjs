/**
 * Writes an archive of what standard input says, as kept_worker.js and row_sink.js do, without the bytes of what
 * is said to be only long: for test_page.py, which reads it with other programs.
 *
 *     node write_zip.mjs FILE < '[{"path", "isDirectory", "text" or "size", "mtime", "streamed"}]'
 */

import fs from "node:fs";

import { archiveEnd, crc32, dataDescriptor, directoryEntry, localHeader } from "../../../flyx/web/zip.js";

const file = fs.openSync(process.argv[2], "w");
const members = JSON.parse(fs.readFileSync(0, "utf8"));
let end = 0;
for (const member of members) {
  const bytes = new TextEncoder().encode(member.text ?? "");
  member.at = end;
  member.size ??= bytes.length;
  member.crc = 0;
  const { length } = localHeader(member);
  member.crc = crc32(bytes.subarray(bytes.length >> 1), crc32(bytes.subarray(0, bytes.length >> 1)));
  fs.writeSync(file, localHeader(member), 0, length, end);
  fs.writeSync(file, bytes, 0, bytes.length, end + length);
  end += length + member.size;
  if (member.streamed) {
    const descriptor = dataDescriptor(member);
    fs.writeSync(file, descriptor, 0, descriptor.length, end);
    end += descriptor.length;
  }
}
const at = end;
for (const member of members) {
  const entry = directoryEntry(member);
  fs.writeSync(file, entry, 0, entry.length, end);
  end += entry.length;
}
const last = archiveEnd(members.length, end - at, at);
fs.writeSync(file, last, 0, last.length, end);
