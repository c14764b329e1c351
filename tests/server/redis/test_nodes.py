"""Two nodes, a service that they share, and clients: whatever breaks, nothing is lost or doubled in silence.

The nodes are the real store and the real hub; only Redis and the sockets are not. Time is virtual.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from flyx.server.config import ServerConfig
from flyx.server.redis.relay import RELAY_TIMEOUT
from flyx.server.redis.store import RedisRoomStore
from flyx.server.rooms.attachment import Attachment
from flyx.server.rooms.hub import Hub
from flyx.server.rooms.store import StoreUnavailable
from flyx.signaling.config import RoomConfig
from flyx.signaling.messages import (
    CLOSE_CODES,
    Answer,
    AnswerData,
    CloseCode,
    ErrorCode,
    JoinData,
    Offer,
    OfferData,
    Paired,
    PairedData,
    Relayed,
    Role,
)
from tests.server.redis.memory_backend import MemoryBackend, Service, VirtualLoop
from tests.server.redis.parts import Still
from tests.thoroughness import share

EPOCH = 1_000_000.0
# Long enough for everybody to come back from anything that happens here.
GRACE = 900.0
ABOUT_PEERS = {"join", "offer", "answer", "ice_candidate", "disconnect"}


class Node:
    """One server without sockets."""

    def __init__(self, service: Service, name: str) -> None:
        loop = asyncio.get_running_loop()
        self.backend = MemoryBackend(service, name)
        self.store = RedisRoomStore(
            self.backend,
            max_rooms=10,
            clock=lambda: EPOCH + loop.time(),
            monotonic=loop.time,
            uniform=service.rng.uniform,
        )
        self.hub = Hub(self.store, ServerConfig(), clock=lambda: EPOCH + loop.time())
        self.store.attach(self.hub)
        self.lines: list[Line] = []
        self._sweeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.store.open(EPOCH)
        self._sweeping = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        assert self._sweeping is not None
        self._sweeping.cancel()
        await self.store.close()

    def die(self) -> None:
        self.backend.die()
        for line in self.lines:
            line.alive = False
            if line.reader is not None:
                line.reader.cancel()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            try:
                await self.hub.sweep()
            except StoreUnavailable:
                continue


class Line:
    """A connection: what the hub sees of it, and the way from the client to the hub."""

    def __init__(self, person: Person, node: Node) -> None:
        self.person = person
        self.node = node
        node.lines.append(self)
        self.attachment: Attachment | None = None
        # The client has been let in; its end is open; the server's end is.
        self.joined = False
        self.open = True
        self.alive = True
        # Why the server has ended it.
        self.closed_for: ErrorCode | None = None
        self.frames: asyncio.Queue[Relayed | Paired | None] = asyncio.Queue()
        self.reader: asyncio.Task[None] | None = None

    # The hub's side.

    @property
    def gone(self) -> bool:
        return not self.alive

    def send(self, text: str) -> None:
        if self.open:
            self.person.hear(json.loads(text))

    def close(self, code: CloseCode, error_code: ErrorCode, reason: str) -> None:
        if self.alive:
            self.alive = False
            self.closed_for = error_code
            self.person.spawn(self._end(code))

    async def _end(self, code: CloseCode) -> None:
        await self.finish()
        if self.open:
            self.open = False
            self.person.closed(self, code)

    async def read(self) -> None:
        """What the server does with each frame, one after the other."""
        while (message := await self.frames.get()) is not None and self.alive:
            if self.attachment is not None:
                rest = self.node.hub.relay(self.attachment, message)
                if rest is not None:
                    await rest

    async def finish(self) -> None:
        """What the server does when a connection is over."""
        self.alive = False
        if self.reader is not None:
            # What has begun is finished first.
            self.frames.put_nowait(None)
            await self.reader
        if self.attachment is not None:
            await self.node.hub.lose(self.attachment, "lost")
        self.node.hub.disconnect(self)


class Person:
    """A client as flyx's own: it counts, resumes, sends again what was not taken, and believes nothing."""

    def __init__(self, world: World, role: Role, name: str) -> None:
        self.world = world
        self.role = role
        self.name = name
        # Where it connects; None: anywhere.
        self.home: Node | None = None
        # Times that it began anew, and what it heard, as numbers of its peers.
        self.sessions = 0
        self.got: list[int] = []
        self.client_id = ""
        self.token = ""
        self.line: Line | None = None
        # Why it will not come back.
        self.over: str | None = None
        # It has hung up on a server that had not let it in yet. Should that do so after another has, the
        # client is told that it was replaced, and ends.
        self.gave_up = False
        # Messages about peers heard in this session, and said in it.
        self.heard = 0
        self.said: list[Relayed | Paired] = []
        # By speaker, the number of the last message, and whether the next must be its successor.
        self.last: dict[str, int] = {}
        self.unbroken: dict[str, bool] = {}
        # What has not come although something later has, by speaker: we have yet to be told.
        self.missing: list[tuple[Person, int]] = []
        # Of what was said to each peer, the last number.
        self.numbers: dict[str, int] = {}
        # Numbers, by peer, of which the server has told us that they may not have arrived.
        self.unsure: set[tuple[str, int]] = set()
        self.tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # Coming and going.

    async def connect(self) -> None:
        while self.over is None:
            node = self.home or self.world.rng.choice(self.world.nodes)
            line = self.line = Line(self, node)
            node.hub.connect(line)
            if self.token:
                claim = JoinData(client_id=self.client_id, resume_token=self.token, received=self.heard)
                line.attachment = await node.hub.resume(line, self.world.room_id, claim)
            else:
                line.attachment = await node.hub.enter(line, self.world.room_id, self.role)
            if line.attachment is not None and line.open:
                line.reader = asyncio.create_task(line.read())
                return
            # A refusal has closed the line, and closed() sees to the rest.
            return

    def closed(self, line: Line, code: CloseCode) -> None:
        if line is not self.line:
            return
        self.line = None
        if CLOSE_CODES[code].retry:
            self.spawn(self._come_back())
        else:
            self.over = f"{code}"

    async def _come_back(self) -> None:
        await asyncio.sleep(self.world.rng.uniform(0.1, 3.0))
        if self.line is None and self.over is None:
            await self.connect()

    def drop_line(self) -> Line | None:
        line = self.line
        if line is not None:
            self.line = None
            line.open = False
            self.gave_up |= line.attachment is None
        return line

    def cut_line(self) -> Line:
        """Lose the connection that there is, without the server's knowledge; return it."""
        line = self.drop_line()
        assert line is not None
        return line

    def lose_node(self, node: Node) -> None:
        """The process is gone to which its connection was."""
        if self.line is not None and self.line.node is node:
            self.drop_line()
            self.spawn(self._come_back())

    def break_line(self, notices_after: float) -> None:
        line = self.drop_line()
        if line is None:
            return

        async def notice() -> None:
            await asyncio.sleep(notices_after)
            if line.alive:
                await line.finish()

        self.spawn(notice())
        self.spawn(self._come_back())

    # Talking.

    def say(self, peer: str) -> None:
        number = self.numbers[peer] = self.numbers.get(peer, 0) + 1
        text = json.dumps({"to": peer, "n": number})
        message: Relayed
        if self.role is Role.SENDER:
            message = Offer(data=OfferData(sdp=text, target_id=peer))
        else:
            message = Answer(data=AnswerData(sdp=text))
        self._post(message)

    def tell_paired(self) -> None:
        self._post(Paired(data=PairedData()))

    def _post(self, message: Relayed | Paired) -> None:
        self.said.append(message)
        if self.line is not None and self.line.joined:
            self.line.frames.put_nowait(message)

    def hear(self, message: dict[str, Any]) -> None:
        kind, data = message["type"], message["data"]
        if kind == "joined":
            self._joined(data)
        elif kind == "error":
            if data["code"] in ("unavailable", "no_such_peer"):
                # Nobody says which: none under way is certain any more.
                for peer, number in self.numbers.items():
                    self.unsure.update((peer, n) for n in range(1, number + 1))
        elif kind in ABOUT_PEERS:
            self.heard += 1
            if kind == "join" and not data.get("recovered", False):
                self.unbroken[data["client_id"]] = False
            if kind in ("offer", "answer"):
                self._check(data["client_id"], json.loads(data["sdp"]))

    def _joined(self, data: dict[str, Any]) -> None:
        self.client_id, self.token = data["client_id"], data["resume_token"]
        self.world.people_by_id[self.client_id] = self
        line = self.line
        assert line is not None
        line.joined = True
        if data["recovered"]:
            again = self.said[data["received"] :]
            for message in again:
                line.frames.put_nowait(message)
        else:
            self.sessions += 1
            self.heard = 0
            self.said = []
            self.unbroken = {}
            # Told that something was lost.
            self.missing = []

    def _check(self, speaker: str, data: dict[str, Any]) -> None:
        # Not raised here: that would be an error inside the server that called us.
        if data["to"] != self.client_id:
            self.world.wrongs.append(f"{self.name} got what was for {data['to']}")
        number, last = data["n"], self.last.get(speaker, 0)
        self.got.append(number)
        who = self.world.people_by_id[speaker]
        if number <= last:
            self.world.wrongs.append(f"{self.name} got {number} of {who.name} after {last}")
            return
        missing = range(last + 1, number)
        if self.unbroken.get(speaker, False):
            self.missing += [(who, n) for n in missing]
        self.last[speaker], self.unbroken[speaker] = number, True


class World:
    """Two nodes, a room, and who is in it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.service = Service(self.rng)
        self.nodes: list[Node] = []
        self.dead: list[Node] = []
        self.people: list[Person] = []
        self.people_by_id: dict[str, Person] = {}
        self.room_id = ""
        # What a client saw that must not be.
        self.wrongs: list[str] = []
        # Redis lost its data: whoever was not connected then may have lost the room, and is told.
        self.flushed = False

    async def start(self, sender_home: int | None = None, max_clients: int = 16) -> None:
        self.nodes = [Node(self.service, name) for name in "ab"]
        for node in self.nodes:
            await node.start()
        config = RoomConfig(max_clients=max_clients, grace=GRACE, ttl=None)
        created = await self.nodes[0].hub.create_room(config)
        self.room_id = created.room.room_id
        await self.arrive(Role.SENDER, None if sender_home is None else self.nodes[sender_home])

    async def arrive(self, role: Role, home: Node | None = None) -> None:
        person = Person(self, role, f"{role.value} {len(self.people)}")
        person.home = home
        self.people.append(person)
        await person.connect()

    async def kill(self, n: int) -> None:
        """End the process of a node at once, and start another in its place."""
        node = self.nodes[n]
        node.die()
        self.dead.append(node)
        self.nodes[n] = Node(self.service, f"{node.backend.name}'")
        await self.nodes[n].start()
        for person in self.people:
            person.lose_node(node)
            if person.home is node:
                person.home = self.nodes[n]

    async def stop(self) -> None:
        for node in self.dead:
            await node.stop()
        for person in self.people:
            for task in list(person.tasks):
                task.cancel()
            if person.line is not None:
                person.line.open = False
                await person.line.finish()
        for node in self.nodes:
            await node.stop()

    async def heal(self) -> None:
        """Let everything work again, and everybody come back."""
        for node in self.nodes:
            node.backend.cut = False
        await asyncio.sleep(60.0)

    @property
    def some_are_out(self) -> bool:
        """Somebody was told to stay away, for a reason that is no fault."""
        return any(p.over and (self.flushed or p.gave_up) for p in self.people)

    def check(self) -> None:
        """After heal(): all is as if nothing had happened."""
        assert not self.wrongs, self.wrongs
        for person in self.people:
            silent = [(w.name, n) for w, n in person.missing if (person.client_id, n) not in w.unsure]
            assert not silent, f"{person.name} never got {silent}, and nobody said so"
        if self.some_are_out:
            return
        assert all(person.over is None for person in self.people), [p.over for p in self.people]
        for person in self.people:
            line = person.line
            assert line is not None, f"{person.name} did not come back"
            assert line.attachment is not None, f"{person.name} was not let in"
            assert line.node.hub.holds(person.client_id, line.attachment.generation), person.name
        kept = self.service.rooms[self.room_id]
        for node in self.nodes:
            entry = node.store.known(self.room_id)
            if entry is not None:
                assert entry.state == kept[0]
                for member in entry.room.members.values():
                    if not any(person.client_id == member.client_id for person in self.people):
                        # It hung up before it knew that it was inside.
                        continue
                    assert member.absence is None
                    home = next(n for n in self.nodes if n.backend.node_id == member.node)
                    assert home.hub.holds(member.client_id, member.generation)

    def say_everything(self) -> None:
        sender, *receivers = self.people
        for receiver in receivers:
            sender.say(receiver.client_id)
            receiver.say(sender.client_id)

    def check_heard(self) -> None:
        sender, *receivers = self.people
        for receiver in receivers:
            for speaker, listener in ((sender, receiver), (receiver, sender)):
                said, heard = speaker.numbers[listener.client_id], listener.last.get(speaker.client_id)
                assert said == heard, f"{listener.name} heard {heard} of {said} by {speaker.name}"


class NodesMachine(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.loop = VirtualLoop()
        self.loop.set_exception_handler(self.complain)
        self.complaints: list[dict[str, Any]] = []
        self.world = World(random.Random(seed))
        self.run(self.world.start())

    def complain(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.complaints.append(context)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(work)

    def pass_time(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    def pick(self, people: list[Person], n: int) -> Person | None:
        return people[n % len(people)] if people else None

    @precondition(lambda self: len(self.world.people) < 4)
    @rule()
    def a_receiver_arrives(self) -> None:
        # Without a sender there is no room for it.
        sender = self.world.people[0]
        if sender.line is not None and sender.line.attachment is not None:
            self.run(self.world.arrive(Role.RECEIVER))
            self.world.people = [p for p in self.world.people if p.client_id or p.over is None]

    @rule(n=st.integers(0, 9), times=st.integers(1, 5))
    def the_sender_speaks(self, n: int, times: int) -> None:
        receiver = self.pick(self.world.people[1:], n)
        if receiver is not None and receiver.client_id:
            for _ in range(times):
                self.world.people[0].say(receiver.client_id)

    @rule(n=st.integers(0, 9), times=st.integers(1, 5))
    def a_receiver_speaks(self, n: int, times: int) -> None:
        receiver = self.pick(self.world.people[1:], n)
        if receiver is not None and receiver.client_id:
            for _ in range(times):
                receiver.say(self.world.people[0].client_id)

    @rule(n=st.integers(0, 9), notices_after=st.sampled_from([0.0, 0.1, 1.0, 20.0]))
    def a_connection_breaks(self, n: int, notices_after: float) -> None:
        person = self.pick(self.world.people, n)
        assert person is not None

        async def break_line() -> None:
            person.break_line(notices_after)

        self.run(break_line())

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.01, 0.05, 0.2, 1.0, 4.0, 20.0]))
    def time_passes(self, seconds: float) -> None:
        self.pass_time(seconds)

    @rule(n=st.integers(0, 1), seconds=st.sampled_from([0.5, 3.0, 14.0, 25.0]))
    def a_node_loses_redis_for_a_while(self, n: int, seconds: float) -> None:
        async def cut() -> None:
            backend = self.world.nodes[n].backend
            backend.cut = True
            backend.break_channel()

            def mend() -> None:
                backend.cut = False

            asyncio.get_running_loop().call_later(seconds, mend)

        self.run(cut())

    @rule(n=st.integers(0, 1), seconds=st.sampled_from([1.0, 10.0, 20.0]))
    def a_node_cannot_talk_to_redis_for_a_while(self, n: int, seconds: float) -> None:
        """Its commands and its channel stand still, which is what it would see had it been frozen."""

        async def freeze() -> None:
            self.world.nodes[n].backend.frozen_until = asyncio.get_running_loop().time() + seconds

        self.run(freeze())

    @rule(n=st.integers(0, 1))
    def the_channel_of_a_node_breaks(self, n: int) -> None:
        async def break_channel() -> None:
            self.world.nodes[n].backend.break_channel()

        self.run(break_channel())

    @rule(n=st.integers(0, 1))
    def a_node_dies(self, n: int) -> None:
        self.run(self.world.kill(n))

    @rule()
    def redis_loses_everything(self) -> None:
        self.world.flushed = True
        self.world.service.flush()

    @rule()
    def all_is_well_again(self) -> None:
        self.run(self.world.heal())
        self.world.check()
        if not any(person.over for person in self.world.people):
            self.world.say_everything()
            self.pass_time(RELAY_TIMEOUT)
            self.world.check_heard()

    @invariant()
    def nothing_went_wrong_unseen(self) -> None:
        assert not self.complaints, self.complaints
        assert not self.world.wrongs, self.world.wrongs

    def teardown(self) -> None:
        try:
            self.all_is_well_again()
            self.nothing_went_wrong_unseen()
        finally:
            self.run(self.world.stop())
            self.loop.close()


class UnderFireMachine(NodesMachine):
    """What breaks does so while much is under way."""

    def everybody_speaks(self, seconds_ago: float) -> None:
        for _ in range(3):
            sender, *receivers = self.world.people
            for receiver in (r for r in receivers if r.client_id):
                sender.say(receiver.client_id)
                receiver.say(sender.client_id)
            self.pass_time(seconds_ago)

    @rule(n=st.integers(0, 1), seconds=st.sampled_from([0.0, 0.001, 0.01, 0.1]))
    def a_channel_breaks_under_what_is_said(self, n: int, seconds: float) -> None:
        self.everybody_speaks(seconds)
        self.the_channel_of_a_node_breaks(n)

    @rule(n=st.integers(0, 9), seconds=st.sampled_from([0.0, 0.001, 0.01, 0.1]))
    def a_connection_breaks_under_what_is_said(self, n: int, seconds: float) -> None:
        self.everybody_speaks(seconds)
        self.a_connection_breaks(n, 0.0)


_SETTINGS = settings(
    max_examples=share(15),
    stateful_step_count=20,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def test_whatever_breaks_nothing_is_lost_or_doubled_in_silence() -> None:
    run_state_machine_as_test(NodesMachine, settings=_SETTINGS)


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_the_same_for_longer() -> None:
    longer = settings(_SETTINGS, max_examples=500, stateful_step_count=40)
    run_state_machine_as_test(UnderFireMachine, settings=longer)


Script = Callable[[World, Person, Person], Coroutine[Any, Any, None]]


def play(script: Script, *, sender: int = 0, receiver: int = 1, max_clients: int = 16) -> None:
    """Run a script with a sender and a receiver, each at home on one node; afterwards all must be well."""
    loop = VirtualLoop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))

    async def run() -> None:
        world = World(Still())
        await world.start(sender, max_clients)
        await world.arrive(Role.RECEIVER, world.nodes[receiver])
        # Until whoever comes back now is sure to have been steady for long enough to judge others.
        await asyncio.sleep(20.0)
        try:
            await script(world, *world.people)
            await world.heal()
            world.check()
            world.say_everything()
            await asyncio.sleep(RELAY_TIMEOUT)
            world.check_heard()
            assert not world.wrongs
        finally:
            await world.stop()
        # Those of clients were told to end a moment ago.
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(run())
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    assert not complaints


@pytest.mark.parametrize("home", [0, 1])
def test_only_what_crosses_nodes_is_waited_for(home: int) -> None:
    async def script(world: World, sender: Person, receiver: Person) -> None:
        here, elsewhere = world.nodes[:2]
        together = home == 0
        assert (here.store.at_hand(world.room_id) is not None) is together
        assert elsewhere.store.at_hand(world.room_id) is None
        sender.say(receiver.client_id)
        await asyncio.sleep(1.0)
        assert receiver.got == [1]

    play(script, receiver=home)


def test_each_node_knows_the_members_of_a_room_as_soon_as_its_clients_do() -> None:
    async def script(world: World, sender: Person, receiver: Person) -> None:
        for node in world.nodes:
            assert set(node.hub.members_of(world.room_id)) == {sender.client_id, receiver.client_id}

    play(script)


def test_what_comes_while_a_connection_ends_is_kept_in_order() -> None:
    async def script(world: World, sender: Person, receiver: Person) -> None:
        there = world.nodes[1].backend
        there.slow = 0.5
        receiver.home = world.nodes[0]
        line = receiver.cut_line()
        receiver.spawn(line.finish())
        # The goodbye is on its way: the room thinks that the receiver is there.
        for _ in range(3):
            await asyncio.sleep(0.1)
            sender.say(receiver.client_id)
        # Now the room knows, and has yet to be told what came too late.
        await asyncio.sleep(0.3)
        sender.say(receiver.client_id)
        await asyncio.sleep(3.0)
        await receiver.connect()
        await asyncio.sleep(1.0)
        assert receiver.got == [1, 2, 3, 4]
        assert receiver.sessions == 1

    play(script)


def test_a_node_that_dies_while_a_connection_ends_takes_nothing_along_in_silence() -> None:
    async def script(world: World, sender: Person, receiver: Person) -> None:
        there = world.nodes[1].backend
        there.lag = 0.5
        receiver.home = world.nodes[0]
        line = receiver.cut_line()
        # It is on the channel of the receiver's node before the room knows that the receiver is away.
        sender.say(receiver.client_id)
        await asyncio.sleep(0.1)
        receiver.spawn(line.finish())
        await asyncio.sleep(0.1)
        # Now the room knows, and the node does not know yet what it should have passed on.
        await world.kill(1)
        await receiver.connect()
        await asyncio.sleep(10.0)
        assert receiver.sessions == 2

    play(script)


def test_who_comes_back_before_its_node_has_told_what_was_on_its_way_waits_for_that() -> None:
    async def script(world: World, sender: Person, receiver: Person) -> None:
        there = world.nodes[1].backend
        there.lag = 0.5
        receiver.home = world.nodes[0]
        line = receiver.cut_line()
        sender.say(receiver.client_id)
        await asyncio.sleep(0.1)
        receiver.spawn(line.finish())
        await asyncio.sleep(0.1)
        await receiver.connect()
        sender.say(receiver.client_id)
        await asyncio.sleep(1.0)
        assert receiver.got == [1, 2]
        assert receiver.sessions == 1
        there.lag = 0.0

    play(script)


def test_a_return_that_was_given_up_while_its_node_stood_still_ends_no_newer_connection() -> None:
    async def script(world: World, sender: Person, receiver: Person) -> None:
        there, here = world.nodes
        receiver.break_line(0.0)
        await asyncio.sleep(0.05)
        there.backend.frozen_until = asyncio.get_running_loop().time() + 10.0
        receiver.home = there
        await asyncio.sleep(1.0)
        assert receiver.line is not None
        assert receiver.line.node is there
        assert receiver.line.attachment is None
        # It tries elsewhere. The server that stands still learns that when it goes on, with all the rest.
        receiver.home = here
        receiver.break_line(0.0)
        await asyncio.sleep(15.0)
        assert receiver.over is None
        assert receiver.line.node is here

    play(script)


def test_what_comes_while_a_client_changes_its_connection_is_heard_on_the_new_one() -> None:
    async def script(world: World, sender: Person, receiver: Person) -> None:
        there = world.nodes[1].backend
        there.slow = 0.5
        receiver.break_line(30.0)
        for _ in range(20):
            await asyncio.sleep(0.1)
            sender.say(receiver.client_id)
        await asyncio.sleep(3.0)
        assert receiver.got == list(range(1, 21))
        assert receiver.sessions == 1

    play(script)


async def lose(node: Node, sender: Person, receiver: Person) -> None:
    """Say something that is lost on its way to a node, with its channel; what comes after it is slow."""
    node.backend.lag = 0.2
    sender.say(receiver.client_id)
    await asyncio.sleep(0.1)
    node.backend.break_channel()


def test_a_client_is_told_that_the_channel_of_its_node_lost_something() -> None:
    async def script(world: World, sender: Person, receiver: Person) -> None:
        sender.say(receiver.client_id)
        await asyncio.sleep(0.1)
        await lose(world.nodes[1], sender, receiver)
        await asyncio.sleep(10.0)
        assert receiver.got == [1]
        assert receiver.sessions == 2

    play(script)


def test_a_client_that_left_before_its_node_knew_of_a_loss_is_told_of_it() -> None:
    async def script(world: World, sender: Person, receiver: Person) -> None:
        there = world.nodes[1].backend
        await lose(world.nodes[1], sender, receiver)
        there.lag = 0.0
        line = receiver.cut_line()
        await line.finish()
        # By now its node has been told how much it should have heard.
        await asyncio.sleep(6.0)
        await receiver.connect()
        await asyncio.sleep(1.0)
        assert receiver.got == []
        assert receiver.sessions == 2

    play(script)


def test_a_client_is_told_of_a_loss_although_its_peer_has_left_the_node_that_sent_it() -> None:
    async def script(world: World, sender: Person, receiver: Person) -> None:
        here, there = world.nodes
        await lose(there, sender, receiver)
        await asyncio.sleep(0.1)
        # Whatever the node is asked or tells takes a while.
        there.backend.lag = 0.0
        here.backend.lag = 1.0
        sender.home = there
        sender.break_line(0.0)
        await asyncio.sleep(3.0)
        sender.say(receiver.client_id)
        here.backend.lag = 0.0
        await asyncio.sleep(6.0)
        assert receiver.sessions == 2
        assert sender.sessions == 1

    play(script)


def test_a_client_that_left_after_its_peer_is_told_of_a_loss_between_their_nodes() -> None:
    async def script(world: World, sender: Person, receiver: Person) -> None:
        here, there = world.nodes
        sender.say(receiver.client_id)
        await asyncio.sleep(0.1)
        await lose(there, sender, receiver)
        await asyncio.sleep(0.15)
        there.backend.lag = 0.0
        # The node of the receiver asks what it should have heard, and the answer takes a while.
        here.backend.lag = 0.5
        moved = sender.cut_line()
        sender.spawn(moved.finish())
        await asyncio.sleep(0.2)
        # By now nobody else is inside, as far as the room knows.
        receiver.home = here
        receiver.break_line(0.0)
        await asyncio.sleep(5.0)
        here.backend.lag = 0.0
        await sender.connect()
        sender.say(receiver.client_id)
        await asyncio.sleep(6.0)
        assert receiver.sessions == 2
        assert sender.sessions == 1

    play(script)


def test_a_client_is_told_of_a_loss_by_a_node_that_died_before_it_could_be_asked() -> None:
    async def script(world: World, sender: Person, receiver: Person) -> None:
        there = world.nodes[1]
        await lose(there, sender, receiver)
        await asyncio.sleep(0.15)
        there.backend.lag = 0.0
        # The speaker moves on in good order, before its node can be asked.
        there.backend.slow = 1.0
        moved = sender.cut_line()
        sender.home = there
        await moved.finish()
        await asyncio.sleep(0.1)
        await world.kill(0)
        await sender.connect()
        sender.say(receiver.client_id)
        there.backend.slow = 0.0
        await asyncio.sleep(40.0)
        assert receiver.sessions == 2

    play(script)


def test_a_client_is_told_of_a_loss_by_a_node_that_is_evicted_before_it_knows() -> None:
    async def script(world: World, sender: Person, receiver: Person) -> None:
        here, there = world.nodes
        await lose(there, sender, receiver)
        await asyncio.sleep(0.15)
        there.backend.lag = 0.0
        here.backend.lag = 1.0
        line = receiver.cut_line()
        receiver.spawn(line.finish())
        await asyncio.sleep(0.5)
        # The room knows that the receiver is away, and its node does not know yet how much was said to it.
        there.backend.frozen_until = asyncio.get_running_loop().time() + 60.0
        await asyncio.sleep(65.0)
        here.backend.lag = 0.0
        receiver.home = here
        await receiver.connect()
        sender.say(receiver.client_id)
        await asyncio.sleep(6.0)
        assert receiver.sessions == 2

    play(script)


def test_two_nodes_that_changed_a_room_differently_after_redis_went_back_in_time_agree_again() -> None:
    async def script(world: World, sender: Person, receiver: Person) -> None:
        here, there = world.nodes
        before = dict(world.service.rooms)
        there.backend.cut = True
        there.backend.break_channel()
        await world.arrive(Role.RECEIVER, here)
        forgotten = world.people[-1]
        # An older copy takes over, and only the node that knows no better can reach it at first.
        here.backend.cut = True
        here.backend.break_channel()
        world.service.rooms = before
        there.backend.cut = False
        await asyncio.sleep(5.0)
        await world.arrive(Role.RECEIVER, there)
        await asyncio.sleep(1.0)
        here.backend.cut = False
        await asyncio.sleep(10.0)
        assert forgotten.over == f"{CloseCode.NO_SUCH_ROOM}"
        world.people.remove(forgotten)

    play(script)


def test_what_a_connection_missed_is_not_forgotten_with_a_return_that_was_given_up() -> None:
    async def script(world: World, sender: Person, receiver: Person) -> None:
        there = world.nodes[1].backend
        receiver.home = world.nodes[1]
        there.slow = 0.5
        receiver.break_line(30.0)
        # Its node has ended the older connection for the sake of the newer one.
        await asyncio.sleep(1.3)
        sender.break_line(0.0)
        # Of that it should have heard on the older one.
        await asyncio.sleep(0.2)
        receiver.break_line(0.0)
        await asyncio.sleep(0.05)
        receiver.home = world.nodes[0]
        await asyncio.sleep(20.0)
        there.slow = 0.0
        assert receiver.sessions == 2

    play(script)


def test_whoever_is_let_in_by_a_node_that_is_taken_for_dead_meanwhile_comes_again() -> None:
    async def script(world: World, sender: Person, receiver: Person) -> None:
        there = world.nodes[1].backend
        receiver.home = world.nodes[1]
        receiver.break_line(0.0)
        await asyncio.sleep(0.05)
        there.slow, there.lag = 0.1, 0.5
        away = world.service.rooms[world.room_id]
        while world.service.rooms[world.room_id] == away:  # noqa: ASYNC110 (virtual time)
            await asyncio.sleep(0.01)
        # The room has let it in, and its node does not know that yet.
        there.frozen_until = asyncio.get_running_loop().time() + 30.0
        there.slow, there.lag = 0.0, 0.0

    play(script)


def test_nobody_is_turned_away_by_a_node_that_has_old_news() -> None:
    async def script(world: World, sender: Person, receiver: Person) -> None:
        here = world.nodes[0]
        here.backend.lag = 0.8
        await world.arrive(Role.RECEIVER, world.nodes[1])
        newcomer = world.people[-1]
        newcomer.home = here
        newcomer.break_line(0.0)
        await asyncio.sleep(5.0)
        assert newcomer.over is None
        here.backend.lag = 0.0

    play(script)


def test_what_was_perhaps_kept_for_somebody_away_does_not_come_twice() -> None:
    async def script(world: World, sender: Person, receiver: Person) -> None:
        here = world.nodes[0].backend
        line = receiver.cut_line()
        await line.finish()
        # Until its node has told that nothing was on the way to it.
        await asyncio.sleep(1.0)
        here.slow = 0.1
        sender.say(receiver.client_id)
        # Redis takes it, and neither the answer nor the word on the channel arrives.
        await asyncio.sleep(0.05)
        here.break_channel()
        await asyncio.sleep(0.07)
        here.cut = True
        await receiver.connect()
        assert receiver.got == [1]
        await asyncio.sleep(12.0)
        here.cut = False
        here.slow = 0.0
        await asyncio.sleep(20.0)
        assert receiver.got == [1]

    play(script)


@pytest.mark.parametrize("home", [0, 1])
@pytest.mark.parametrize("door", [0, 1])
def test_a_receiver_that_makes_way_is_told_so_on_whichever_node(home: int, door: int) -> None:
    async def script(world: World, sender: Person, receiver: Person) -> None:
        sender.tell_paired()
        await asyncio.sleep(1.0)
        line = receiver.line
        assert line is not None
        await world.arrive(Role.RECEIVER, world.nodes[door])
        await asyncio.sleep(1.0)
        assert line.closed_for is ErrorCode.DISPLACED
        assert receiver.over == f"{CloseCode.ROOM_FULL}"
        world.people.remove(receiver)

    play(script, receiver=home, max_clients=2)
