/**
 * What the signaling server says: the grammar of flyx/signaling/messages.py as far as it reaches a client,
 * the close codes, and what they mean.
 *
 * @module
 */

import { utf8 } from "./bytes.js";
import { isRoomId } from "./codes.js";
import * as errors from "./errors.js";
import {
  flag,
  integer,
  list,
  nullable,
  number,
  one,
  optional,
  parseMessage,
  record,
  text,
} from "./grammar.js";

/** Bytes of a message as UTF-8. */
const MAX_MESSAGE_SIZE = 64 * 1024;

const MAX_PEERS = 256;

const clientId = text(64, /^[0-9A-Za-z_-]{1,64}$/);
const token = text(256, /^[!-~]+$/);
const role = one("sender", "receiver");
const printable = text(512, /^[^\p{C}]*$/u);
const iceServers = list(
  record({
    // RFC 7064 and RFC 7065, as far as it matters here.
    urls: list(text(512, /^(?:stun|turn)s?:[!-~]+$/), 16),
    username: optional(printable),
    credential: optional(printable),
  }),
  16,
);
const GRAMMAR = {
  joined: record({
    room_id: text(64),
    client_id: clientId,
    role,
    resume_token: token,
    recovered: optional(flag, false),
    received: optional(integer(), 0),
    peers: optional(list(record({ client_id: clientId, role, away: optional(flag, false) }), MAX_PEERS), []),
    ice_servers: optional(iceServers, []),
    ice_servers_ttl: optional(number(0)),
    wants_paired: optional(flag, false),
    limits: record({ max_message_size: integer(1), max_clients: integer(2), grace: optional(number(0), 0) }),
  }),
  join: record({ client_id: clientId, role, recovered: optional(flag, false) }),
  offer: record({ client_id: clientId, sdp: text(MAX_MESSAGE_SIZE) }),
  answer: record({ client_id: clientId, sdp: text(MAX_MESSAGE_SIZE) }),
  ice_candidate: record({
    client_id: clientId,
    candidate: nullable(
      record({
        candidate: text(2048),
        sdpMid: optional(text(64), null),
        sdpMLineIndex: optional(integer(0, 65535), null),
        usernameFragment: optional(text(256), null),
      }),
    ),
  }),
  ice_servers: record({ ice_servers: optional(iceServers, []), ice_servers_ttl: optional(number(0)) }),
  disconnect: record({ client_id: clientId, reason: optional(text(200), ""), away: optional(flag, false) }),
  ping: record({}),
  pong: record({}),
  error: record({
    code: text(64),
    message: text(500),
    fatal: flag,
    retry_after: optional(number(0), 0),
  }),
};
/** Each message is its type and, in `data`, its fields. */
const TYPES = Object.fromEntries(Object.entries(GRAMMAR).map(([type, data]) => [type, record({ data })]));

/** What only one role hears. @type {Record<string, string>} */
const HEARD_BY = { offer: "receiver", answer: "sender" };

/**
 * Whether to connect again after a close of this code, and what it means.
 *
 * @type {Record<number, [boolean, string]>}
 */
const CLOSE_CODES = {
  1000: [false, "the client had said that it leaves"],
  1012: [true, "the server is stopping or restarting"],
  1013: [true, "the server has no room for more at the moment"],
  4400: [false, "the client does not speak this protocol"],
  4401: [false, "the client may not do this here"],
  4404: [false, "there is no such room, or no sender in it"],
  4408: [true, "the client was too slow to answer or to read"],
  4409: [false, "a newer connection of the same client took its place"],
  4410: [false, "the room is closed: its sender left, or it grew too old"],
  4413: [false, "the room is full, or the client made way for another"],
  4429: [true, "the client asks too often"],
};
const NO_SUCH_ROOM = 4404;
const ROOM_CLOSED = 4410;
const ROOM_FULL = 4413;

/** Seconds of the longest pause that a server may ask for. */
const MAX_WANTED_PAUSE = 300;

/**
 * Return what a server says: `{ type, ...data }`.
 *
 * @param {unknown} frame
 * @param {"sender" | "receiver"} ours What we are.
 * @returns {any}
 * @throws {FlyxError} `server_protocol_error`
 */
export function parseServerUntrusted(frame, ours) {
  if (typeof frame !== "string") throw errors.serverBroke("a binary message");
  if (frame.length > MAX_MESSAGE_SIZE || utf8(frame).length > MAX_MESSAGE_SIZE) {
    throw errors.serverBroke("a message is too large");
  }
  const parsed = parseMessage(frame, TYPES);
  if (!parsed) throw errors.serverBroke("a message that is none of this protocol");
  const message = { ...parsed.data, type: parsed.type };
  if ((HEARD_BY[message.type] ?? ours) !== ours || (message.type === "join" && message.role === ours)) {
    throw errors.serverBroke(`\`${message.type}\` to a ${ours}`);
  }
  return message;
}

/**
 * Check that a `joined` answers what we asked.
 *
 * @param {any} joined
 * @param {object} asked
 * @param {string | null} asked.roomId null: a new one.
 * @param {"sender" | "receiver"} asked.role
 * @param {{ clientId: string, received: number | null } | null} asked.claim An earlier place.
 * @throws {FlyxError} `server_protocol_error`
 */
export function checkJoined(joined, { roomId, role, claim }) {
  const ids = [joined.client_id, ...joined.peers.map((/** @type {any} */ peer) => peer.client_id)];
  const fault =
    (!isRoomId(joined.room_id) && "a room_id that is no room id") ||
    (roomId !== null && joined.room_id !== roomId && "another room than was asked for") ||
    (joined.role !== role && "another role than was asked for") ||
    (claim && joined.client_id !== claim.clientId && "the client_id of somebody else") ||
    (new Set(ids).size < ids.length && "one client_id twice") ||
    (joined.recovered && (claim?.received ?? null) === null && "a session that was not there") ||
    (joined.received > 0 && !joined.recovered && "messages that were never sent") ||
    (joined.peers.some((/** @type {any} */ peer) => peer.role === role) && "peers of the same role") ||
    (role === "receiver" && joined.peers.length > 1 && "too many peers");
  if (fault) throw errors.serverBroke(`its \`joined\` has ${fault}`);
}

/**
 * Return what a connection that was closed is for us, and whether it may be tried again.
 *
 * @param {number} code Of the close frame; 1006 if there was none.
 * @param {any} told The last fatal error that came before; null if none did.
 * @param {{ roomId: string | null, isNew: boolean, role: string, url: string, wasOpen: boolean }} wanted
 * @returns {{ error: errors.FlyxError, retry: boolean }}
 */
export function errorOfClose(code, told, wanted) {
  const { roomId, isNew, role } = wanted;
  if (code === NO_SUCH_ROOM && isNew) return final(errors.serverRefused("no room can be made there"));
  if (code === NO_SUCH_ROOM) return final(errors.noSuchRoom(roomId ?? ""));
  if (code === ROOM_FULL) return final(errors.roomFull(roomId ?? ""));
  if (code === 1006 && !wanted.wasOpen) {
    return { error: errors.serverUnreachable(wanted.url, "no WebSocket to it can be opened"), retry: true };
  }
  const [retry, meaning] = CLOSE_CODES[code] ?? [true, "the connection was lost"];
  const reason = told?.message ?? meaning;
  if (retry) {
    const error = errors.serverClosed(reason);
    error.retryAfter = Math.min(told?.retry_after ?? 0, MAX_WANTED_PAUSE);
    return { error, retry };
  }
  if (code === ROOM_CLOSED) {
    const hint = role === "receiver" ? errors.ASK_FOR_ANOTHER : "send again, for a new code";
    return final(errors.serverClosed(reason, hint));
  }
  return final(errors.serverRefused(reason));
}

/** @param {errors.FlyxError} error */
const final = (error) => ({ error, retry: false });
