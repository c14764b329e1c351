from __future__ import annotations

import asyncio
import gc
import re
import time

import pytest

from flyx.errors import InputError
from flyx.server.app import Server
from tests.server.peers import OFFER, FakeClock, Peer, http_of, joined, local, pair, peer


def bearing(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def metrics_of(server: Server) -> dict[str, float]:
    async with http_of(server) as http:
        response = await http.get("/metrics")
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    samples = (line.rsplit(" ", 1) for line in response.text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in samples}


async def test_metrics_tell_what_has_happened() -> None:
    async with Server(local()) as server:
        async with pair(server) as (sender, receiver):
            await sender.say(OFFER)
            await receiver.expect("offer")
            await receiver.say("garbage")
            await receiver.expect_error("bad_json")
            async with peer(server, "/ws/ZZZZZZ") as stranger:
                await stranger.drain()
            async with peer(server, f"/ws/{sender.room_id}?role=sender") as pretender:
                await pretender.drain()
            told = await metrics_of(server)
            assert told["flyx_rooms"] == 1
            assert told["flyx_clients"] == 2
            assert told["flyx_queued_bytes"] == 0
            assert told["flyx_tasks"] >= 1
            assert told['flyx_joins_total{outcome="joined"}'] == 2
            assert told['flyx_joins_total{outcome="no_such_room"}'] == 1
            assert told['flyx_joins_total{outcome="role_taken"}'] == 1
            assert told['flyx_messages_total{type="offer"}'] == 1
            assert told['flyx_messages_total{type="invalid"}'] == 1
            assert told['flyx_relays_total{path="local"}'] == 1
            assert told['flyx_relays_total{path="remote"}'] == 0
            everything = " ".join(told)
            for secret in (sender.room_id, sender.id, receiver.id, "127.0.0.1"):
                assert secret not in everything


@pytest.mark.parametrize("outcome", ["direct", "relayed", "failed"])
async def test_receivers_tell_how_their_transfers_went(outcome: str) -> None:
    async with Server(local()) as server, pair(server) as (sender, receiver):
        await receiver.say({"type": "disconnect", "data": {"outcome": outcome}})
        await receiver.expect_close(1000)
        told = await metrics_of(server)
        assert told[f'flyx_transfers_total{{outcome="{outcome}"}}'] == 1
        assert sum(value for name, value in told.items() if name.startswith("flyx_transfers_total")) == 1
        # That is between the receiver and the server.
        assert "outcome" not in await sender.expect("disconnect")


async def test_an_outcome_that_there_is_not_is_a_bad_message() -> None:
    async with Server(local()) as server, pair(server) as (_, receiver):
        await receiver.say({"type": "disconnect", "data": {"outcome": "perfect"}})
        await receiver.expect_error("bad_message")


async def test_the_loops_lag_is_measured() -> None:
    async with Server(local()) as server, asyncio.timeout(5):
        while not (await metrics_of(server))["flyx_loop_lag_seconds_count"]:
            pass


async def test_the_pauses_of_the_garbage_collector_are_measured() -> None:
    others = list(gc.callbacks)
    began = time.perf_counter()
    async with Server(local()) as server:
        before = await metrics_of(server)
        gc.collect()
        after = await metrics_of(server)
    took = time.perf_counter() - began
    assert after["flyx_gc_pause_seconds_count"] > before["flyx_gc_pause_seconds_count"]
    assert after['flyx_gc_pause_seconds_bucket{le="+Inf"}'] == after["flyx_gc_pause_seconds_count"]
    assert before["flyx_gc_pause_seconds_sum"] < after["flyx_gc_pause_seconds_sum"] < took
    # Nothing of a server that has ended goes on measuring.
    assert gc.callbacks == others


async def test_metrics_and_status_may_have_a_port_of_their_own() -> None:
    async with Server(local(metrics_port=0)) as server:
        async with http_of(server) as http:
            for path in ("/metrics", "/status"):
                assert (await http.get(path)).status_code == 404
            assert set((await http.get("/openapi.json")).json()["paths"]) == {
                *("/room", "/room/{room_id}", "/healthz", "/readyz")
            }
        async with http_of(server, server.metrics_port) as http:
            for path in ("/metrics", "/status", "/healthz", "/readyz"):
                assert (await http.get(path)).status_code == 200
            assert (await http.post("/room")).status_code == 404


async def test_a_metrics_port_that_is_taken_is_an_input_error_that_names_its_option() -> None:
    async with Server(local()) as other:
        server = Server(local(metrics_port=other.port))
        with pytest.raises(InputError) as caught:
            await server.start()
        assert "--metrics-port" in str(caught.value.hint)
        # Nothing is left listening.
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", server.port)


@pytest.mark.parametrize(
    "authorization", [None, "Bearer wrong", "Bearer", "Basic c2VjcmV0", "s3cret", "Bearer s3cret x"]
)
async def test_metrics_may_need_a_token(authorization: str | None) -> None:
    async with Server(local(metrics_token="s3cret")) as server, http_of(server) as http:
        for path in ("/metrics", "/status"):
            headers = {"Authorization": authorization} if authorization is not None else {}
            response = await http.get(path, headers=headers)
            assert (response.status_code, response.json()["code"]) == (401, "bad_token")
            assert response.headers["WWW-Authenticate"] == "Bearer"
            assert (await http.get(path, headers=bearing("s3cret"))).status_code == 200
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/readyz")).status_code == 200


async def test_making_rooms_may_need_a_token_and_entering_them_does_not() -> None:
    async with Server(local(api_token="s3cret")) as server, http_of(server) as http:
        for headers in ({}, bearing("wrong")):
            response = await http.post("/room", headers=headers)
            assert (response.status_code, response.json()["code"]) == (401, "bad_token")
            async with peer(server, additional_headers=headers) as creator:
                await creator.expect_error("bad_token", fatal=True)
                await creator.expect_close(4401)
        response = await http.post("/room", headers=bearing("s3cret"))
        assert response.status_code == 201
        async with joined(server, f"/ws/{response.json()['room_id']}"):
            pass
        async with joined(server, additional_headers=bearing("s3cret")) as sender:
            async with joined(server, f"/ws/{sender.room_id}"):
                pass


# Draining.


async def drained(client: Peer) -> float:
    """When a client was told to come back."""
    await client.expect_error("server_stopping", fatal=True)
    await client.expect_close(1012)
    return asyncio.get_running_loop().time()


async def test_a_server_that_is_drained_takes_nobody_in_and_is_alive() -> None:
    async with Server(local()) as server, joined(server) as sender, http_of(server) as http:
        assert (await http.get("/readyz")).status_code == 200
        draining = asyncio.create_task(server.drain(2.0))
        async with asyncio.timeout(5):
            while (await http.get("/readyz")).status_code != 503:
                pass
        response = await http.get("/readyz")
        assert response.json()["code"] == "server_stopping"
        assert int(response.headers["Retry-After"]) > 0
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.post("/room")).status_code == 503
        for path in ("/ws", f"/ws/{sender.room_id}"):
            async with peer(server, path) as late:
                await drained(late)
        await drained(sender)
        await draining


async def test_clients_are_sent_away_one_after_the_other_and_no_later_than_said() -> None:
    async with Server(local()) as server, pair(server) as two, pair(server) as more, pair(server) as rest:
        loop = asyncio.get_running_loop()
        start = loop.time()
        clients = [asyncio.create_task(drained_at_last(client)) for client in (*two, *more, *rest)]
        await server.drain(0.6)
        times = sorted([await client - start for client in clients])
        assert times[-1] - times[0] > 0.2
        assert loop.time() - start < 3


async def drained_at_last(client: Peer) -> float:
    await client.drain()
    assert client.socket.close_code == 1012
    return asyncio.get_running_loop().time()


async def test_a_client_that_does_not_read_does_not_hold_up_the_drain() -> None:
    async with Server(local(close_timeout=0.1, linger=0.1)) as server, joined(server) as client:
        client.socket.transport.pause_reading()
        async with asyncio.timeout(5):
            await server.drain(0.2)
        client.socket.transport.abort()


async def test_without_clients_there_is_nothing_to_drain() -> None:
    async with Server(local(), clock=FakeClock()) as server, asyncio.timeout(5):
        await server.drain(1000.0)


def test_no_metric_is_by_room_client_or_address() -> None:
    from flyx.server.metrics import Metrics

    text = Metrics().expose(rooms=0, connections=0, tasks=0, queues=[]).decode()
    assert set(re.findall(r"[{,](\w+)=", text)) <= {"outcome", "type", "path", "limit", "le", "version"}
