/**
 * The parts of a ZIP archive whose files are stored as they are (APPNOTE 6.3.10), with ZIP64 where sizes or
 * places need it.
 *
 * An archive is, for each member, `localHeader` and then its bytes; and at last `directoryEntry` for each
 * member and `archiveEnd`. Sizes are known before the first byte; the CRC-32 of a file is not. Where the file
 * can be written to at any place, its header is written again when it is; where it cannot, the member is
 * `streamed`, and `dataDescriptor` follows its bytes.
 *
 * @module
 */

/**
 * @typedef {object} Member
 * @property {string} path Its parts joined by "/".
 * @property {boolean} isDirectory
 * @property {number} size Bytes.
 * @property {number} crc CRC-32 of these.
 * @property {number} mtime Milliseconds since 1970.
 * @property {number} at Where its header is.
 * @property {boolean} [streamed] Its header is written before its CRC is known.
 */

/** From this on a size or place stands in the fields of ZIP64. */
const LONG = 0xffffffff;
const MANY = 0xffff;

/** Of ZIP64, 4.5; else 2.0, for directories. */
const [VERSION, VERSION_LONG] = [20, 45];

/** Names are UTF-8; and what is not known at the header follows the bytes. */
const [UTF8, DESCRIBED] = [1 << 11, 1 << 3];

/** Attributes are those of Unix, and made by version 4.5. */
const MADE_BY = (3 << 8) | VERSION_LONG;
const [FILE_MODE, DIRECTORY_MODE] = [0o100644, 0o040755];

const encoder = new TextEncoder();

/**
 * The header before the bytes of a member. It is as long whatever the CRC.
 *
 * @param {Omit<Member, "at">} member
 * @returns {Uint8Array}
 */
export function localHeader(member) {
  const name = nameOf(member);
  const isLong = member.size >= LONG;
  const known = member.streamed ? 0 : member.size;
  const size = isLong ? LONG : known;
  return new Bytes()
    .u32(0x04034b50)
    .u16(isLong ? VERSION_LONG : VERSION)
    .u16(flagsOf(member))
    .u16(0)
    .u32(dosTime(member.mtime))
    .u32(member.streamed ? 0 : member.crc)
    .u32(size)
    .u32(size)
    .u16(name.length)
    .u16(timeExtra(member).length + (isLong ? 20 : 0))
    .bytes(name)
    .bytes(timeExtra(member))
    .bytes(isLong ? longExtra([known, known]) : [])
    .done();
}

/**
 * What follows the bytes of a streamed member.
 *
 * @param {Omit<Member, "at">} member
 * @returns {Uint8Array}
 */
export function dataDescriptor({ crc, size }) {
  const bytes = new Bytes().u32(0x08074b50).u32(crc);
  return (size >= LONG ? bytes.u64(size).u64(size) : bytes.u32(size).u32(size)).done();
}

/**
 * What the directory at the end says of a member.
 *
 * @param {Member} member
 * @returns {Uint8Array}
 */
export function directoryEntry(member) {
  const name = nameOf(member);
  const longSize = member.size >= LONG;
  const longPlace = member.at >= LONG;
  const long = [...(longSize ? [member.size, member.size] : []), ...(longPlace ? [member.at] : [])];
  const extra = long.length ? longExtra(long) : new Uint8Array();
  const mode = member.isDirectory ? DIRECTORY_MODE : FILE_MODE;
  return new Bytes()
    .u32(0x02014b50)
    .u16(MADE_BY)
    .u16(long.length ? VERSION_LONG : VERSION)
    .u16(flagsOf(member))
    .u16(0)
    .u32(dosTime(member.mtime))
    .u32(member.crc)
    .u32(longSize ? LONG : member.size)
    .u32(longSize ? LONG : member.size)
    .u16(name.length)
    .u16(timeExtra(member).length + extra.length)
    .u16(0)
    .u16(0)
    .u16(0)
    .u32(((mode << 16) | (member.isDirectory ? 0x10 : 0)) >>> 0)
    .u32(longPlace ? LONG : member.at)
    .bytes(name)
    .bytes(timeExtra(member))
    .bytes(extra)
    .done();
}

/**
 * What an archive ends with.
 *
 * @param {number} count Of the members.
 * @param {number} size Bytes of the directory.
 * @param {number} at Where it begins.
 * @returns {Uint8Array}
 */
export function archiveEnd(count, size, at) {
  const bytes = new Bytes();
  if (count >= MANY || size >= LONG || at >= LONG) {
    bytes
      .u32(0x06064b50)
      .u64(44)
      .u16(MADE_BY)
      .u16(VERSION_LONG)
      .u32(0)
      .u32(0)
      .u64(count)
      .u64(count)
      .u64(size)
      .u64(at)
      .u32(0x07064b50)
      .u32(0)
      .u64(at + size)
      .u32(1);
  }
  return bytes
    .u32(0x06054b50)
    .u16(0)
    .u16(0)
    .u16(Math.min(count, MANY))
    .u16(Math.min(count, MANY))
    .u32(Math.min(size, LONG))
    .u32(Math.min(at, LONG))
    .u16(0)
    .done();
}

const TABLES = makeTables();

function makeTables() {
  const tables = Array.from({ length: 8 }, () => new Uint32Array(256));
  for (let byte = 0; byte < 256; byte += 1) {
    let value = byte;
    for (let bit = 0; bit < 8; bit += 1) value = (value >>> 1) ^ (value & 1 ? 0xedb88320 : 0);
    tables[0][byte] = value;
  }
  for (let byte = 0; byte < 256; byte += 1) {
    for (let table = 1; table < 8; table += 1) {
      const before = tables[table - 1][byte];
      tables[table][byte] = (before >>> 8) ^ tables[0][before & 0xff];
    }
  }
  return tables;
}

/**
 * CRC-32, of bytes that follow those of which `crc` is, eight at a time.
 *
 * @param {Uint8Array} bytes
 * @param {number} [crc]
 */
export function crc32(bytes, crc = 0) {
  const [t0, t1, t2, t3, t4, t5, t6, t7] = TABLES;
  let value = ~crc;
  let at = 0;
  for (const end = bytes.length - 8; at <= end; at += 8) {
    value ^= bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) | (bytes[at + 3] << 24);
    value =
      t7[value & 0xff] ^
      t6[(value >>> 8) & 0xff] ^
      t5[(value >>> 16) & 0xff] ^
      t4[value >>> 24] ^
      t3[bytes[at + 4]] ^
      t2[bytes[at + 5]] ^
      t1[bytes[at + 6]] ^
      t0[bytes[at + 7]];
  }
  for (; at < bytes.length; at += 1) value = (value >>> 8) ^ t0[(value ^ bytes[at]) & 0xff];
  return ~value >>> 0;
}

/** Integers, least significant byte first. */
class Bytes {
  #parts = [];

  u16(value) {
    this.#parts.push(value & 0xff, value >>> 8);
    return this;
  }

  u32(value) {
    this.#parts.push(value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24);
    return this;
  }

  u64(value) {
    return this.u32(value % 2 ** 32).u32(Math.floor(value / 2 ** 32));
  }

  bytes(more) {
    for (const byte of more) this.#parts.push(byte);
    return this;
  }

  done() {
    return Uint8Array.from(this.#parts);
  }
}

function flagsOf({ streamed }) {
  return streamed ? UTF8 | DESCRIBED : UTF8;
}

function nameOf({ path, isDirectory }) {
  return encoder.encode(isDirectory ? `${path}/` : path);
}

/** ZIP64: what has no place in the fields for it. */
function longExtra(values) {
  const bytes = new Bytes().u16(0x0001).u16(8 * values.length);
  for (const value of values) bytes.u64(value);
  return bytes.done();
}

/** The time in seconds since 1970, as far as 32 bits have it. */
function timeExtra({ mtime }) {
  const seconds = Math.floor(mtime / 1000);
  if (seconds < -(2 ** 31) || seconds >= 2 ** 31) return new Uint8Array();
  return new Bytes().u16(0x5455).u16(5).bytes([1]).u32(seconds >>> 0).done();
}

/** The time where the browser is, in steps of two seconds from 1980 to 2107; the date in the upper half. */
function dosTime(mtime) {
  const time = new Date(Math.min(Math.max(mtime, Date.UTC(1980, 0, 2)), Date.UTC(2107, 11, 30)));
  const date = ((time.getFullYear() - 1980) << 9) | ((time.getMonth() + 1) << 5) | time.getDate();
  return ((date << 16) | (time.getHours() << 11) | (time.getMinutes() << 5) | (time.getSeconds() >> 1)) >>> 0;
}
