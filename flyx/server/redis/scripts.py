"""What happens inside Redis: each script is one atomic step, and each key it leaves has a time to live.

    flyx:room:ID      hash    i: incarnation, v: version, a space and the change that made it so, d: record
    flyx:due          zset    room ids by deadline (Unix seconds of the nodes); all of them, so it counts them
    flyx:made:CREATOR set     ids of the rooms in its budget, some of which may be over; none without a budget
    flyx:lease:NODE   string  there while the node's lease runs
    flyx:nodes        zset    nodes by the end of their lease (Redis' milliseconds)
    flyx:grave:NODE   string  a tombstone: the node was evicted, and never gets a lease under this name
    flyx:rooms:NODE   set     ids of rooms with clients there: a hint for evictions, never the truth
    flyx:epoch        hash    id, and ticks, which only ever grow
    flyx:janitor      string  the leader, which does what one node does for all
    flyx:node:NODE    channel

Keys are made up inside, from ids: a Redis Cluster, which has to see every key beforehand, is not supported.
Leases go by the clock of Redis, deadlines of rooms by that of the nodes.
"""

from __future__ import annotations

from typing import Final

LEADER_MS: Final = 3_000
"""For so long the node that does the tasks of the leader is that again without having to win."""

INDEX_MS: Final = 40 * 24 * 3600 * 1000
"""How long keys are kept that describe the service and not a room. Every use starts that time anew."""

GRAVE_MS: Final = 24 * 3600 * 1000
"""How long a tombstone is kept. A node that was frozen for longer finds out by an audit of its rooms."""

_PRELUDE = f"""
local INDEX_MS, GRAVE_MS = {INDEX_MS}, {GRAVE_MS}
local function leased(node) return redis.call('EXISTS', 'flyx:lease:' .. node) == 1 end
local function channel(node) return 'flyx:node:' .. node end
local function index(room_id, deadline)
  redis.call('ZADD', 'flyx:due', deadline, room_id)
  redis.call('PEXPIRE', 'flyx:due', INDEX_MS)
end
local function settle(node, room_id)
  redis.call('SADD', 'flyx:rooms:' .. node, room_id)
  redis.call('PEXPIRE', 'flyx:rooms:' .. node, INDEX_MS)
end
local function credit(creator, room_id)
  if creator == '' then return end
  redis.call('SADD', 'flyx:made:' .. creator, room_id)
  redis.call('PEXPIRE', 'flyx:made:' .. creator, INDEX_MS)
end
local function count_made(creator)
  for _, room_id in ipairs(redis.call('SMEMBERS', 'flyx:made:' .. creator)) do
    if redis.call('EXISTS', 'flyx:room:' .. room_id) == 0 then
      redis.call('SREM', 'flyx:made:' .. creator, room_id)
    end
  end
  return redis.call('SCARD', 'flyx:made:' .. creator)
end
"""

# node, room id, incarnation, version, data, deadline, ttl, creator or "", most rooms, most of one creator
# -> lost | taken | full | spent | ok
_CREATE = """
local node, room_id, i, v, d, deadline, ttl, creator, most, budget = unpack(ARGV)
local key = 'flyx:room:' .. room_id
if not leased(node) then return 'lost' end
if redis.call('EXISTS', key) == 1 then return 'taken' end
if redis.call('ZCARD', 'flyx:due') >= tonumber(most) then return 'full' end
if creator ~= '' and count_made(creator) >= tonumber(budget) then return 'spent' end
redis.call('HSET', key, 'i', i, 'v', v, 'd', d)
redis.call('PEXPIRE', key, ttl)
index(room_id, deadline)
credit(creator, room_id)
return 'ok'
"""

# room id -> i, v, d | false, false, false
_LOAD = """
local found = redis.call('HMGET', 'flyx:room:' .. ARGV[1], 'i', 'v', 'd')
if not found[1] then redis.call('ZREM', 'flyx:due', ARGV[1]) end
return found
"""

# room id -> i, v | false, false
_VERSION = """
return redis.call('HMGET', 'flyx:room:' .. ARGV[1], 'i', 'v')
"""

# -> how many rooms there are
_COUNT = """
return redis.call('ZCARD', 'flyx:due')
"""

# -> ids of all rooms
_ROOMS = """
return redis.call('ZRANGE', 'flyx:due', 0, -1)
"""

# node, room id, incarnation, version, new version, data or "", deadline, ttl, nodes with clients now (how
# many, then their ids), nodes without any more (likewise), then pairs of node and message
# -> lost | gone | stale | done | ok and how many were subscribed, for each message
_COMMIT = """
local node, room_id, i, v, after, d, deadline, ttl = unpack(ARGV, 1, 8)
local key = 'flyx:room:' .. room_id
if not leased(node) then return {'lost'} end
local kept = redis.call('HMGET', key, 'i', 'v')
if not kept[1] then return {'gone'} end
if kept[1] == i and kept[2] == after then return {'done'} end
if kept[1] ~= i or kept[2] ~= v then return {'stale'} end
if d == '' then
  redis.call('DEL', key)
  redis.call('ZREM', 'flyx:due', room_id)
else
  redis.call('HSET', key, 'v', after, 'd', d)
  redis.call('PEXPIRE', key, ttl)
  index(room_id, deadline)
end
local at = 9
for n = 1, tonumber(ARGV[at]) do settle(ARGV[at + n], room_id) end
at = at + tonumber(ARGV[at]) + 1
for n = 1, tonumber(ARGV[at]) do redis.call('SREM', 'flyx:rooms:' .. ARGV[at + n], room_id) end
at = at + tonumber(ARGV[at]) + 1
local answer = {'ok'}
for n = at, #ARGV, 2 do answer[#answer + 1] = redis.call('PUBLISH', channel(ARGV[n]), ARGV[n + 1]) end
return answer
"""

# node, room id, incarnation, version, data, deadline, ttl, creator or "", nodes with clients
# -> lost | newer | ok
_RESTORE = """
local node, room_id, i, v, d, deadline, ttl, creator = unpack(ARGV, 1, 8)
local key = 'flyx:room:' .. room_id
if not leased(node) then return 'lost' end
local kept = redis.call('HMGET', key, 'i', 'v')
local function number(version) return tonumber(string.match(version, '%d+')) end
if kept[1] and (kept[1] ~= i or number(kept[2]) >= number(v)) then return 'newer' end
redis.call('HSET', key, 'i', i, 'v', v, 'd', d)
redis.call('PEXPIRE', key, ttl)
index(room_id, deadline)
credit(creator, room_id)
for n = 9, #ARGV do settle(ARGV[n], room_id) end
return 'ok'
"""

# node, to, sequence number, then room id, incarnation, version and item of each
# -> lost | how many were subscribed (-1: none was sent), whether `to` has a lease, and 1 or 0 for each item
_RELAY = """
local node, to, sequence = ARGV[1], ARGV[2], ARGV[3]
if not leased(node) then return {'lost'} end
local answer, said = {'ok', -1, 1}, {}
for n = 4, #ARGV, 4 do
  local kept = redis.call('HMGET', 'flyx:room:' .. ARGV[n], 'i', 'v')
  local current = kept[1] == ARGV[n + 1] and kept[2] == ARGV[n + 2]
  if current then said[#said + 1] = ARGV[n + 3] end
  answer[#answer + 1] = current and 1 or 0
end
if #said > 0 then
  local text = '["relay","' .. node .. '",' .. sequence .. ',[' .. table.concat(said, ',') .. ']]'
  answer[2] = redis.call('PUBLISH', channel(to), text)
  if answer[2] == 0 and not leased(to) then answer[3] = 0 end
end
return answer
"""

# node, to, message -> lost | how many were subscribed
_PUBLISH = """
if not leased(ARGV[1]) then return 'lost' end
return redis.call('PUBLISH', channel(ARGV[2]), ARGV[3])
"""

# node, lease in ms, the ticks seen last, an id for a new epoch -> held | lapsed | evicted, epoch, ticks
_RENEW = """
local node, lease, seen, fresh = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local epoch = redis.call('HMGET', 'flyx:epoch', 'id', 'ticks')
local id, ticks = epoch[1], tonumber(epoch[2] or 0)
if not id or ticks < seen then
  -- Everything is gone, or an older copy has taken over.
  id, ticks = fresh, math.max(ticks, seen)
  redis.call('HSET', 'flyx:epoch', 'id', id)
end
ticks = ticks + 1
redis.call('HSET', 'flyx:epoch', 'ticks', ticks)
redis.call('PEXPIRE', 'flyx:epoch', INDEX_MS)
local how = leased(node) and 'held' or 'lapsed'
if redis.call('EXISTS', 'flyx:grave:' .. node) == 1 then return {'evicted', id, ticks} end
local time = redis.call('TIME')
redis.call('SET', 'flyx:lease:' .. node, '1', 'PX', lease)
redis.call('ZADD', 'flyx:nodes', time[1] * 1000 + math.floor(time[2] / 1000) + lease, node)
redis.call('PEXPIRE', 'flyx:nodes', INDEX_MS)
redis.call('PEXPIRE', 'flyx:rooms:' .. node, INDEX_MS)
return {how, id, ticks}
"""

# node, its turn in ms, now -> 0 | 1, dead nodes, due rooms
_LEADER_TASKS = """
local node, turn, now = ARGV[1], ARGV[2], ARGV[3]
local winner = redis.call('GET', 'flyx:janitor')
if winner and winner ~= node then return {0} end
redis.call('SET', 'flyx:janitor', node, 'PX', turn)
local time = redis.call('TIME')
local dead = redis.call('ZRANGEBYSCORE', 'flyx:nodes', '-inf', time[1] * 1000, 'LIMIT', 0, 10)
return {1, dead, redis.call('ZRANGEBYSCORE', 'flyx:due', '-inf', now, 'LIMIT', 0, 100)}
"""

# node -> 0 | 1, rooms
_EVICT = """
if leased(ARGV[1]) then return {0} end
redis.call('SET', 'flyx:grave:' .. ARGV[1], '1', 'PX', GRAVE_MS)
return {1, redis.call('SMEMBERS', 'flyx:rooms:' .. ARGV[1])}
"""

# node -> 1. Its tombstone stays.
_FORGET = """
redis.call('DEL', 'flyx:rooms:' .. ARGV[1])
redis.call('ZREM', 'flyx:nodes', ARGV[1])
return 1
"""

# node -> 1. A node that stops has no clients left.
_RESIGN = """
redis.call('DEL', 'flyx:lease:' .. ARGV[1], 'flyx:rooms:' .. ARGV[1])
redis.call('ZREM', 'flyx:nodes', ARGV[1])
if redis.call('GET', 'flyx:janitor') == ARGV[1] then redis.call('DEL', 'flyx:janitor') end
return 1
"""

SCRIPTS: Final = {
    name: _PRELUDE + body
    for name, body in {
        "create": _CREATE,
        "load": _LOAD,
        "version": _VERSION,
        "count": _COUNT,
        "rooms": _ROOMS,
        "commit": _COMMIT,
        "restore": _RESTORE,
        "relay": _RELAY,
        "publish": _PUBLISH,
        "renew": _RENEW,
        "leader_tasks": _LEADER_TASKS,
        "evict": _EVICT,
        "forget": _FORGET,
        "resign": _RESIGN,
    }.items()
}
"""Lua by name; flyx.server.redis.client has what goes in, and what comes out of each."""
