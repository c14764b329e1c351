from __future__ import annotations

import asyncio
import contextlib
import logging
from ipaddress import ip_network

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from flyx.server.app import Server
from flyx.server.config import LimitConfig, ServerConfig, parse_rate
from flyx.signaling.config import RoomConfig
from tests.server.peers import ANSWER, OFFER, PATIENCE, candidate, http_of, joined, local, pair, peer, to

LOOPBACK = (ip_network("127.0.0.0/8"),)


# Host and Origin.


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::1", "a b"]
)
async def test_a_server_on_the_loopback_goes_by_no_other_name(host: str) -> None:
    async with Server(local()) as server, http_of(server) as http:
        response = await http.post("/room", headers={"Host": host})
        assert response.status_code in (400, 403)
        if response.status_code == 403:
            assert response.json()["code"] == "forbidden_host"
        for good in ("localhost", f"LOCALHOST:{server.port}", "127.0.0.1", "[::1]:1", "192.0.2.1"):
            assert (await http.post("/room", headers={"Host": good})).status_code == 201


async def test_names_that_are_allowed_are_the_only_ones() -> None:
    config = local(host="0.0.0.0", allowed_hosts=("flyx.example",))
    async with Server(config) as server, http_of(server) as http:
        assert (await http.post("/room", headers={"Host": "Flyx.Example:8000"})).status_code == 201
        assert (await http.post("/room", headers={"Host": "other.example"})).status_code == 403
        # Whoever watches over the server asks under any name.
        assert (await http.get("/healthz", headers={"Host": "10-0-0-7.pods"})).status_code == 200
    async with Server(local(host="0.0.0.0")) as server, http_of(server) as http:
        assert (await http.post("/room", headers={"Host": "other.example"})).status_code == 201


async def test_pages_from_elsewhere_are_refused_before_they_are_in() -> None:
    async with Server(local()) as server, http_of(server) as http:
        host = server.url.removeprefix("ws://")
        for origin in (
            "https://evil.example",
            "null",
            f"https://{host}.evil.example",
            "http://127.0.0.1:1",
            "x",
        ):
            with pytest.raises(InvalidStatus) as refused:
                async with connect(server.url + "/ws", origin=origin):  # type: ignore[arg-type]
                    pass
            assert refused.value.response.status_code == 403
            assert b"forbidden_origin" in (refused.value.response.body or b"")
            response = await http.post("/room", headers={"Origin": origin})
            assert (response.status_code, response.json()["code"]) == (403, "forbidden_origin")
        async with joined(server, origin=f"http://{host}"), joined(server):
            pass


async def test_the_default_port_of_a_page_is_the_one_that_its_scheme_has() -> None:
    async with Server(local()) as server, http_of(server) as http:
        for origin, host, status in [
            ("https://localhost", "localhost", 201),
            ("https://localhost:443", "localhost", 201),
            ("http://localhost", "localhost:80", 201),
            ("http://localhost", "localhost:443", 403),
        ]:
            response = await http.post("/room", headers={"Origin": origin, "Host": host})
            assert response.status_code == status, (origin, host)


async def test_pages_of_allowed_origins_are_let_in() -> None:
    async with Server(local(allowed_origins=("https://Page.example/",))) as server:
        async with joined(server, origin="https://page.example"):
            pass
        with pytest.raises(InvalidStatus):
            async with connect(server.url + "/ws", origin="https://other.example"):  # type: ignore[arg-type]
                pass
    async with Server(local(allowed_origins=("*",))) as server, joined(server, origin="null"):
        pass


# Limits of connections.


async def test_a_full_server_tells_both_kinds_of_client_when_to_come_back() -> None:
    config = local(limits=LimitConfig(max_connections=2))
    async with Server(config) as server, pair(server):
        async with peer(server) as third:
            await third.expect_error("too_many_connections", fatal=True)
            await third.expect_close(1013)
        async with http_of(server) as http:
            response = await http.post("/room")
            assert (response.status_code, response.json()["code"]) == (503, "too_many_connections")
            assert int(response.headers["Retry-After"]) > 0
            assert response.headers["Connection"] == "close"
            # Full is not dead.
            assert (await http.get("/healthz")).status_code == 200


async def test_one_address_may_have_so_many_connections() -> None:
    config = local(limits=LimitConfig(max_connections_per_address=2))
    async with Server(config) as server:
        async with pair(server) as (sender, receiver):
            async with peer(server, f"/ws/{sender.room_id}") as third:
                await third.expect_error("too_many_connections", fatal=True)
                await third.expect_close(4429)
            async with http_of(server) as http:
                response = await http.get("/status")
                assert response.status_code == 429
                assert int(response.headers["Retry-After"]) > 0
            await sender.say(OFFER)
            await receiver.expect("offer")
            await receiver.socket.close()
        async with pair(server):
            pass


# Proxies.


async def test_who_is_not_a_proxy_is_not_believed() -> None:
    limits = LimitConfig(create_rate=parse_rate("2/minute"))
    async with Server(local(limits=limits)) as server, http_of(server) as http:
        for n, status in enumerate((201, 201, 429)):
            response = await http.post("/room", headers={"X-Forwarded-For": f"192.0.2.{n}"})
            assert response.status_code == status


async def test_a_proxy_is_believed_about_the_nearest_stranger() -> None:
    limits = LimitConfig(create_rate=parse_rate("1/minute"))
    config = local(limits=limits, trusted_proxies=LOOPBACK)
    async with Server(config) as server, http_of(server) as http:

        async def ask(*lines: str, scheme: str = "https") -> httpx.Response:
            headers = [("X-Forwarded-For", line) for line in lines]
            return await http.post("/room", headers=[*headers, ("X-Forwarded-Proto", scheme)])

        first = await ask("192.0.2.1")
        assert first.json()["ws_url"].startswith("wss://")
        assert (await ask("192.0.2.1")).status_code == 429
        # What stands to the left of it, the stranger may have written itself.
        assert (await ask("198.51.100.7, 192.0.2.1")).status_code == 429
        assert (await ask("198.51.100.7", "192.0.2.1, 127.0.0.9")).status_code == 429
        assert (await ask("192.0.2.1:50001")).status_code == 429
        assert (await ask("[2001:db8::1]:50001")).status_code == 201
        assert (await ask("2001:db8::2")).status_code == 429
        assert (await ask("192.0.2.2", scheme="http")).json()["ws_url"].startswith("ws://")


async def test_connections_through_a_proxy_count_for_whom_it_speaks() -> None:
    config = local(limits=LimitConfig(max_connections_per_address=1), trusted_proxies=LOOPBACK)

    def forwarded(address: str) -> dict[str, dict[str, str]]:
        return {"additional_headers": {"X-Forwarded-For": address}}

    async with Server(config) as server:
        async with joined(server, **forwarded("192.0.2.1")), joined(server, **forwarded("192.0.2.2")):
            async with peer(server, **forwarded("192.0.2.1")) as second:
                await second.expect_error("too_many_connections", fatal=True)
                await second.expect_close(4429)
        async with joined(server, **forwarded("192.0.2.1")):
            pass


# Rates.


async def test_rates_answer_http_with_429_and_websockets_with_4429() -> None:
    limits = LimitConfig(create_rate=parse_rate("2/minute"), join_rate=parse_rate("2/minute"))
    async with Server(local(limits=limits)) as server, http_of(server) as http:
        room_id = (await http.post("/room")).json()["room_id"]
        async with joined(server):
            pass
        response = await http.post("/room")
        assert (response.status_code, response.json()["code"]) == (429, "rate_limited")
        assert 0 < int(response.headers["Retry-After"]) <= 60
        async with peer(server) as creator:
            await creator.expect_error("rate_limited", fatal=True)
            await creator.expect_close(4429)
        async with joined(server, f"/ws/{room_id}"), joined(server, f"/ws/{room_id}"):
            async with peer(server, f"/ws/{room_id}") as third:
                await third.expect_error("rate_limited", fatal=True)
                await third.expect_close(4429)


async def test_tokens_cannot_be_guessed_faster_than_rooms_are_made() -> None:
    limits = LimitConfig(create_rate=parse_rate("2/minute"))
    async with Server(local(limits=limits, api_token="s3cret")) as server, http_of(server) as http:
        for status in (401, 401, 429):
            assert (await http.post("/room")).status_code == status
        async with peer(server, additional_headers={"Authorization": "Bearer s3cret"}) as creator:
            await creator.expect_error("rate_limited", fatal=True)


@pytest.mark.parametrize("guesses", [("ZZZZZZ", "ZZZZZ0"), ("nonsense", "K7M2QX-lemon-otter")])
async def test_who_guesses_is_soon_told_nothing_of_any_room(guesses: tuple[str, str]) -> None:
    async with Server(local(limits=LimitConfig(miss_rate=parse_rate("2/minute")))) as server:
        async with http_of(server) as http, joined(server) as sender:
            assert (await http.get(f"/room/{guesses[0]}")).status_code == 404
            async with peer(server, f"/ws/{guesses[1]}") as stranger:
                await stranger.expect_error("no_such_room", fatal=True)
            # There or not there, the answer is the same.
            for room_id in ("ZZZZZ1", sender.room_id, guesses[1]):
                response = await http.get(f"/room/{room_id}")
                assert (response.status_code, response.json()["code"]) == (429, "rate_limited")
                async with peer(server, f"/ws/{room_id}") as stranger:
                    await stranger.expect_error("rate_limited", fatal=True)
                    await stranger.expect_close(4429)
            await sender.expect_silence()


async def test_who_makes_rooms_of_its_own_choice_has_looked_for_them() -> None:
    limits = LimitConfig(miss_rate=parse_rate("2/minute"))
    async with Server(local(limits=limits)) as server, joined(server) as sender:
        # Whether it was free or not.
        async with joined(server, "/ws?room=ZZZZZZ"):
            pass
        async with peer(server, f"/ws?room={sender.room_id}") as stranger:
            await stranger.expect_error("room_taken", fatal=True)
        for path in ("/ws?room=ZZZZZ0", f"/ws?room={sender.room_id}", f"/ws/{sender.room_id}"):
            async with peer(server, path) as stranger:
                await stranger.expect_error("rate_limited", fatal=True)
                await stranger.expect_close(4429)
        # Whoever does not ask for any guesses nothing.
        async with joined(server):
            pass


async def test_rooms_of_ones_own_choice_count_as_rooms_and_need_the_token() -> None:
    limits = LimitConfig(create_rate=parse_rate("2/minute"), miss_rate=parse_rate("1/minute"))
    async with Server(local(limits=limits, api_token="s3cret")) as server:
        async with peer(server, "/ws?room=K7M2QX") as stranger:
            await stranger.expect_error("bad_token", fatal=True)
        headers = {"Authorization": "Bearer s3cret"}
        async with joined(server, "/ws?room=K7M2QX", additional_headers=headers):
            pass
        async with peer(server, "/ws?room=K7M2QX", additional_headers=headers) as third:
            await third.expect_error("rate_limited", fatal=True)


async def test_whoever_reaches_a_rate_is_told_when_to_come_back() -> None:
    limits = LimitConfig(join_rate=parse_rate("1/minute"), max_connections=2)
    async with Server(local(limits=limits)) as server, pair(server) as (sender, receiver):
        async with peer(server) as third:
            error = await third.expect("error")
            assert (error["code"], error["retry_after"]) == ("too_many_connections", 10)
        await receiver.socket.close()
        await sender.expect("disconnect")
        async with peer(server, f"/ws/{sender.room_id}") as again:
            error = await again.expect("error")
            assert error["code"] == "rate_limited"
            assert 0 < error["retry_after"] <= 60


async def test_a_client_that_talks_too_much_is_closed() -> None:
    limits = LimitConfig(message_rate=1.0, message_burst=5)
    async with Server(local(limits=limits)) as server, pair(server) as (sender, receiver):
        for _ in range(50):
            await receiver.say({"type": "ping"})
        heard = await receiver.drain()
        assert [message["type"] for message in heard] == ["pong"] * 5 + ["error"]
        assert heard[-1]["data"]["code"] == "rate_limited"
        assert receiver.socket.close_code == 4429
        await sender.expect("disconnect")
        await sender.expect_silence()


async def test_offers_and_candidates_for_one_peer_are_counted() -> None:
    limits = LimitConfig(max_offers_per_peer=2, max_candidates_per_peer=3)
    async with Server(local(limits=limits)) as server, pair(server) as (sender, receiver):
        for _ in range(3):
            await sender.say(OFFER)
        for _ in range(4):
            await receiver.say(candidate())
        await sender.expect_error("rate_limited")
        for _ in range(3):
            await sender.expect("ice_candidate")
        for _ in range(2):
            await receiver.expect("offer")
        await receiver.expect_error("rate_limited")
        await sender.expect_silence()
        await receiver.expect_silence()


async def test_what_one_client_said_counts_also_when_it_comes_back() -> None:
    limits = LimitConfig(max_offers_per_peer=2)
    async with (
        Server(local(limits=limits)) as server,
        pair(server) as (sender, receiver),
        contextlib.AsyncExitStack() as stack,
    ):
        claim, path = sender.joined, f"/ws/{sender.room_id}?resume=1"
        for _ in range(2):
            await sender.say(OFFER)
        for _ in range(2):
            await receiver.expect("offer")
        for _ in range(3):
            again = await stack.enter_async_context(peer(server, path))
            data = {"client_id": sender.id, "resume_token": claim["resume_token"]}
            await again.say({"type": "join", "data": data})
            claim = await again.expect("joined")
            await again.expect("join")
            await receiver.expect("join")
            await again.say(OFFER)
            await again.expect_error("rate_limited")
            await receiver.expect_silence()


async def test_receivers_of_one_address_count_together_however_often_they_come_anew() -> None:
    """A stranger could tell a sender as much as it liked, with a new client id for each 16 answers."""
    limits = LimitConfig(max_offers_per_peer=2)
    room = RoomConfig(max_clients=4)
    config = local(limits=limits, room=room, trusted_proxies=(ip_network("127.0.0.1"),))
    async with Server(config) as server, joined(server) as sender:
        path = f"/ws/{sender.room_id}"

        async def answer(address: str) -> bool:
            """Come, answer once and go; whether the sender has heard it."""
            headers = {"X-Forwarded-For": address}
            async with joined(server, path, additional_headers=headers) as receiver:
                await sender.expect("join")
                await receiver.say(ANSWER)
                await receiver.say({"type": "ping"})
                heard = (await receiver.hear())["type"] == "pong"
                if heard:
                    await sender.expect("answer")
            await sender.expect("disconnect")
            return heard

        assert [await answer("192.0.2.1") for _ in range(10)] == [True] * 8 + [False] * 2
        assert await answer("192.0.2.2")


async def test_targets_that_are_not_there_count_together_and_are_held_against_no_sender() -> None:
    """They may have left a moment ago, on purpose: 33 of them must not have the sender closed."""
    limits = LimitConfig(max_offers_per_peer=2)
    async with Server(local(limits=limits)) as server, pair(server) as (sender, receiver):
        for n in range(100):
            await sender.say(to(f"absent {n}", OFFER))
            await sender.expect_error("no_such_peer" if n < 2 else "rate_limited")
        for _ in range(2):
            await sender.say(to(receiver.id, OFFER))
            await receiver.expect("offer")
        await sender.expect_silence()


async def test_a_receiver_has_one_peer_whatever_target_it_writes() -> None:
    limits = LimitConfig(max_offers_per_peer=2)
    async with Server(local(limits=limits)) as server, pair(server) as (sender, receiver):
        for n in range(3):
            await receiver.say(to(f"absent {n}", OFFER))
            await receiver.expect_error("wrong_role" if n < 2 else "rate_limited")
        await sender.expect_silence()


async def test_limits_are_logged_now_and_then_and_without_addresses(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    limits = LimitConfig(create_rate=parse_rate("1/minute"))
    async with Server(local(limits=limits)) as server, http_of(server) as http:
        for _ in range(20):
            await http.post("/room")
        metrics = (await http.get("/metrics")).text
        assert 'flyx_limits_total{limit="create"} 19.0' in metrics
    lines = [record for record in caplog.records if record.getMessage() == "limit reached"]
    assert len(lines) == 1
    assert "127.0.0.1" not in str(vars(lines[0]))


async def test_nothing_stays_counted() -> None:
    async with Server(local()) as server:
        async with pair(server), http_of(server) as http:
            assert "flyx_connections 3.0" in (await http.get("/metrics")).text
        async with http_of(server) as http, asyncio.timeout(PATIENCE):
            while "flyx_connections 1.0" not in (await http.get("/metrics")).text:
                pass


def test_the_defaults_are_limits() -> None:
    limits = ServerConfig().limits
    assert limits.max_connections
    assert limits.max_connections_per_address
    assert limits.miss_rate
    assert limits.total_miss_rate
