"""What nodes publish on each other's channels: one JSON array a message.

    ["mine", change]                         to oneself: a change by this node took place
    ["room", room_id, incarnation, version, change, before, record | null, [effect, ...]]
                                             a room has changed; before: the change that came before this one;
                                             null: it is closed
    ["relay", from, sequence, [item, ...]]   messages of clients there for clients here
    ["mark", from, sequence]                 the last `relay` so far: shows what is missing at the end
    ["ask", from]                            something may not have arrived: send a `mark`
    ["probe", number]                        to oneself: does this channel carry?
    ["oust", room_id, client_id, generation] this client has resumed on another node

    effect  = ["send", client_id, generation, text, counted]
              | ["close", client_id, generation, close code, error code, reason]
    item    = [room_id, speaker, [[client_id, generation], ...], text]

All that comes from Redis is believed: a program that can write there controls the service anyway.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from msgspec import json

from flyx.server.redis.backend import Item, SharedRoom
from flyx.signaling.commands import CloseClient, Deliver, Effect
from flyx.signaling.messages import Error, serialize

MINE: Final = "mine"
ROOM: Final = "room"
RELAY: Final = "relay"
MARK: Final = "mark"
ASK: Final = "ask"
PROBE: Final = "probe"
TAKEOVER: Final = "oust"

SEND: Final = "send"
CLOSE: Final = "close"


def encode(message: list[Any]) -> str:
    """Return a message, or a part of one, as text."""
    return json.encode(message).decode()


def dump_changes(
    entry: SharedRoom, before: str, record: str | None, node_ids: Iterable[str], effects: Iterable[Effect]
) -> dict[str, str]:
    """Return the `room` message for each node: how the room is now, and what its clients there are sent.

    Args:
        entry: the room after the change.
        before: the change before.
        record: the same as text; None if it is closed.
        node_ids: the nodes.
        effects: for clients of all nodes, in order.
    """
    parts: dict[str, list[list[Any]]] = {node_id: [] for node_id in node_ids}
    texts: dict[int, str] = {}
    for effect in effects:
        if isinstance(effect, Deliver | CloseClient) and effect.member.node in parts:
            parts[effect.member.node].append(_dump_effect(effect, texts))
    head = [ROOM, entry.room.room_id, *entry.state, before, record]
    return {node_id: encode([*head, those]) for node_id, those in parts.items()}


def _dump_effect(effect: Deliver | CloseClient, texts: dict[int, str]) -> list[Any]:
    member = effect.member
    if isinstance(effect, CloseClient):
        code = effect.error_code.value
        return [CLOSE, member.client_id, member.generation, int(effect.close_code), code, effect.reason]
    # A broadcast is the same message many times: it is serialized once.
    key = id(effect.message)
    if key not in texts:
        texts[key] = serialize(effect.message)
    counted = not isinstance(effect.message, Error)
    return [SEND, member.client_id, member.generation, texts[key], counted]


def dump_item(item: Item) -> str:
    """Return an item as it stands in a `relay` message."""
    return encode([item.room_id, item.speaker, item.targets, item.text])
