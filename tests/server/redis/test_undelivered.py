from __future__ import annotations

from flyx.server.redis.undelivered import Undelivered
from flyx.signaling.commands import Leave, LoseConnection, Resume
from flyx.signaling.members import Traffic
from tests.server.redis.parts import occupied

ROOM = occupied(("sender", "a1"))
GENERATION = ROOM.members["sender"].generation
LOSE = LoseConnection("sender", GENERATION, "lost", Traffic(3, 4))
RESUME = Resume("sender", "old", "new", handover=(GENERATION, Traffic(3, 4)))


def test_the_traffic_of_a_connection_that_lacks_a_message_is_not_believed() -> None:
    undelivered = Undelivered()
    undelivered.add("sender", GENERATION)
    assert undelivered.corrected(LOSE) == LoseConnection("sender", GENERATION, "lost", None)
    assert undelivered.corrected(RESUME) == Resume("sender", "old", "new")


def test_that_of_any_other_connection_is() -> None:
    undelivered = Undelivered()
    undelivered.add("sender", GENERATION + 1)
    undelivered.add("receiver", GENERATION)
    assert undelivered.corrected(LOSE) is LOSE
    assert undelivered.corrected(RESUME) is RESUME


def test_a_connection_is_forgotten_once_its_room_has_been_told() -> None:
    for command in (LOSE, RESUME, Leave("sender", GENERATION, "it left")):
        undelivered = Undelivered()
        undelivered.add("sender", GENERATION)
        undelivered.told(ROOM, command)
        assert undelivered.corrected(LOSE) is LOSE


def test_who_resumes_in_another_room_leaves_a_connection_remembered() -> None:
    undelivered = Undelivered()
    undelivered.add("sender", GENERATION)
    undelivered.told(occupied(("other", "a1")), RESUME)
    assert undelivered.corrected(LOSE) != LOSE
