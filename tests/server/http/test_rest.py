from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import httpx
import pytest

from flyx import __version__
from flyx.server.app import Server
from flyx.server.config import DEFAULT_MAX_BODY_SIZE, parse_rate
from tests.server.peers import UNLIMITED, FakeClock, http_of, joined, local

pytestmark = pytest.mark.asyncio(loop_scope="module")

DAY = 24 * 3600


def check_error(response: httpx.Response, status: int, code: str) -> None:
    assert response.status_code == status
    assert set(response.json()) == {"code", "message"}
    assert response.json()["code"] == code
    assert response.json()["message"]


async def test_a_room_is_made_with_its_defaults() -> None:
    clock = FakeClock()
    async with Server(local(), clock=clock) as server, http_of(server) as http:
        response = await http.post("/room")
        assert response.status_code == 201
        body = response.json()
        assert set(body) == {"room_id", "owner_token", "expires_at", "ws_url"}
        assert body["expires_at"] == clock.now + DAY
        assert body["ws_url"] == f"{server.url}/ws/{body['room_id']}"
        assert len(body["owner_token"]) == 32

        info = (await http.get(f"/room/{body['room_id']}")).json()
        assert info == {
            "room_id": body["room_id"],
            "status": "waiting",
            "created_at": clock.now,
            "expires_at": clock.now + DAY,
            "persistent": False,
            "has_sender": False,
            "receivers": 0,
            "max_clients": 16,
        }


async def test_each_wish_is_granted() -> None:
    clock = FakeClock()
    async with Server(local(), clock=clock) as server, http_of(server) as http:
        wishes = {"max_clients": 3, "ttl": 5 * DAY, "idle_timeout": 30, "persistent": True}
        body = (await http.post("/room", json=wishes)).json()
        info = (await http.get(f"/room/{body['room_id']}")).json()
        assert info["max_clients"] == 3
        assert info["persistent"] is True
        assert info["expires_at"] == clock.now + 5 * DAY

        brief = (await http.post("/room", json={"idle_timeout": 30})).json()
        clock.now += 30
        check_error(await http.get(f"/room/{brief['room_id']}"), 404, "no_such_room")
        assert (await http.get(f"/room/{body['room_id']}")).status_code == 200


async def test_persistent_rooms_last_a_month_unless_said_otherwise() -> None:
    clock = FakeClock()
    async with Server(local(), clock=clock) as server, http_of(server) as http:
        body = (await http.post("/room", json={"persistent": True})).json()
        assert body["expires_at"] == clock.now + 30 * DAY


@pytest.mark.parametrize(
    "wishes",
    [
        {"max_clients": 1},
        {"max_clients": 257},
        {"max_clients": "3"},
        {"max_clients": 2.5},
        {"ttl": 59},
        {"ttl": DAY + 1},
        {"ttl": 30 * DAY + 1, "persistent": True},
        {"idle_timeout": 9},
        {"idle_timeout": DAY + 1},
        {"persistent": "yes"},
        [],
        "room",
    ],
)
async def test_impossible_wishes_are_refused(http: httpx.AsyncClient, wishes: Any) -> None:
    check_error(await http.post("/room", json=wishes), 422, "bad_request")


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 9000, b'{"ttl":' * 1000])
async def test_a_body_that_is_not_json_is_refused(http: httpx.AsyncClient, body: bytes) -> None:
    response = await http.post("/room", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 422)
    assert response.json()["code"] == "bad_request"


async def test_a_large_body_is_refused_whatever_its_headers_say(http: httpx.AsyncClient) -> None:
    async def endless() -> Any:
        for _ in range(2 * DEFAULT_MAX_BODY_SIZE // 1024):
            yield b" " * 1024

    headers = {"Content-Type": "application/json"}
    large = json.dumps({"pad": "x" * DEFAULT_MAX_BODY_SIZE}).encode()
    check_error(await http.post("/room", content=large, headers=headers), 413, "message_too_big")
    check_error(await http.post("/room", content=endless(), headers=headers), 413, "message_too_big")


async def test_the_largest_body_is_taken(http: httpx.AsyncClient) -> None:
    body = json.dumps({"pad": ""}).encode()
    body = body.replace(b'""', b'"' + b"x" * (DEFAULT_MAX_BODY_SIZE - len(body)) + b'"')
    assert len(body) == DEFAULT_MAX_BODY_SIZE
    response = await http.post("/room", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 201


async def test_a_room_tells_how_it_stands_and_not_who_is_inside(
    server: Server, http: httpx.AsyncClient
) -> None:
    async with joined(server) as sender:
        async with joined(server, f"/ws/{sender.room_id}") as receiver:
            response = await http.get(f"/room/{sender.room_id.lower()}")
            info = response.json()
            assert (info["status"], info["has_sender"], info["receivers"]) == ("open", True, 1)
            assert sender.id not in response.text
            assert receiver.id not in response.text
            await sender.expect("join")
        await sender.expect("disconnect")
        assert (await http.get(f"/room/{sender.room_id}")).json()["receivers"] == 0


@pytest.mark.parametrize("room_id", ["ZZZZZZ", "nonsense", "K7M2QX-lemon-otter", "%00", "%F0%9F%A6%A6"])
async def test_missing_and_impossible_rooms_get_one_answer(http: httpx.AsyncClient, room_id: str) -> None:
    response = await http.get(f"/room/{room_id}")
    check_error(response, 404, "no_such_room")
    assert response.json()["message"] == "there is no such room"


async def test_a_whole_number_may_be_written_with_a_point(http: httpx.AsyncClient) -> None:
    response = await http.post("/room", json={"max_clients": 3.0, "ttl": 600.0, "idle_timeout": 1e2})
    assert response.status_code == 201


async def test_a_method_that_is_not_there_is_answered_with_those_that_are(http: httpx.AsyncClient) -> None:
    for path, methods in (("/room/ZZZZZZ", "DELETE, GET"), ("/room", "POST"), ("/openapi.json", "GET, HEAD")):
        response = await http.put(path)
        assert (response.status_code, response.headers["Allow"]) == (405, methods)


async def test_the_description_asks_for_a_token_only_where_one_is_needed() -> None:
    for options, secured in (
        ({}, {"/room/{room_id} delete"}),
        ({"api_token": "a"}, {"/room post", "/room/{room_id} delete"}),
        ({"admin_token": "c"}, {"/rooms get", "/room/{room_id} delete"}),
        ({"metrics_token": "b"}, {"/status get", "/metrics get", "/room/{room_id} delete"}),
    ):
        async with Server(local(**options)) as server, http_of(server) as http:
            paths = (await http.get("/openapi.json")).json()["paths"]
        found = {
            f"{path} {method}"
            for path, operations in paths.items()
            for method, operation in operations.items()
            if "security" in operation
        }
        assert found == secured


async def test_a_full_server_says_when_to_come_back() -> None:
    async with Server(local(max_rooms=1)) as server, http_of(server) as http:
        assert (await http.post("/room")).status_code == 201
        response = await http.post("/room")
        check_error(response, 503, "too_many_rooms")
        assert int(response.headers["Retry-After"]) > 0


async def test_status_counts_rooms_and_clients() -> None:
    clock = FakeClock()
    async with Server(local(), clock=clock) as server, http_of(server) as http:
        async with joined(server) as sender, joined(server, f"/ws/{sender.room_id}"):
            clock.now += 90
            status = (await http.get("/status")).json()
            assert status == {"version": __version__, "uptime": 90, "rooms": 1, "clients": 2}
        async with asyncio.timeout(5):
            while (await http.get("/status")).json()["clients"]:
                pass
        assert (await http.get("/status")).json()["rooms"] == 0


async def test_healthz_answers(http: httpx.AsyncClient) -> None:
    response = await http.get("/healthz")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


async def test_the_frameworks_errors_look_like_ours(http: httpx.AsyncClient) -> None:
    check_error(await http.get("/nowhere"), 404, "not_found")
    for path in ("/ws", "/ws/K7M2QX", "/relay/K7M2QX"):
        response = await http.get(path)
        check_error(response, 426, "websocket_needed")
        assert response.headers["Upgrade"] == "websocket"
    check_error(await http.delete("/room"), 405, "method_not_allowed")


async def test_openapi_describes_every_answer() -> None:
    async with Server(local(admin_token="operator")) as server, http_of(server) as http:
        document = (await http.get("/openapi.json")).json()
    assert set(document["paths"]) == {
        *("/room", "/room/{room_id}", "/rooms", "/status", "/metrics", "/healthz", "/readyz")
    }
    post = document["paths"]["/room"]["post"]["responses"]
    assert set(post) == {"201", "400", "401", "413", "422", "429", "503"}
    for path in document["paths"].values():
        for operation in path.values():
            for status, response in operation["responses"].items():
                if status == "204":
                    assert "content" not in response
                    continue
                if "text/plain" in response["content"]:
                    continue
                schema = response["content"]["application/json"]["schema"]["$ref"]
                assert schema.endswith("/ApiError") == (status >= "400"), (operation, status)


async def test_an_address_with_all_its_persistent_rooms_is_told_when_unused_ones_have_ended() -> None:
    config = local(max_persistent_per_address=1, unused_timeout=90.5)
    async with Server(config) as server, http_of(server) as http:
        await http.post("/room", json={"persistent": True})
        refused = await http.post("/room", json={"persistent": True})
        check_error(refused, 429, "rate_limited")
        assert refused.headers["Retry-After"] == "91"
        assert "91 s" in refused.json()["message"]


async def test_persistent_rooms_of_one_address_are_few_however_many_it_asks_for() -> None:
    """It took 39 requests to fill a server of 40 rooms for 30 days."""
    limits = replace(UNLIMITED, max_connections_per_address=0)
    config = local(max_rooms=40, test_room=True, limits=limits, trusted_proxies=(ip_network("127.0.0.1"),))
    async with Server(config) as server, http_of(server) as http:

        async def ask(address: str, **wishes: object) -> httpx.Response:
            return await http.post("/room", json=wishes, headers={"X-Forwarded-For": address})

        answers = [await ask(f"2001:db8::{n}", persistent=True) for n in range(1, 40)]
        assert [answer.status_code for answer in answers] == [201] * 8 + [429] * 31
        check_error(answers[-1], 429, "rate_limited")
        assert answers[-1].headers["Retry-After"] == "3600"
        assert "persistent" in answers[-1].json()["message"]
        # A room that is kept for a day with nobody inside fills a server as well.
        assert (await ask("2001:db8::1", idle_timeout=DAY)).status_code == 429
        # Passing rooms, and those of others, are free.
        assert (await ask("2001:db8::1")).status_code == 201
        assert (await ask("2001:db8:0:1::1", persistent=True)).status_code == 201
        metrics = (await http.get("/metrics")).text
        assert 'flyx_limits_total{limit="persistent"} 32.0' in metrics
        # One that is closed makes place for another.
        first = answers[0].json()
        owner = {"Authorization": f"Bearer {first['owner_token']}"}
        await http.delete(f"/room/{first['room_id']}", headers=owner)
        assert (await ask("2001:db8::1", persistent=True)).status_code == 201


async def test_a_persistent_room_that_no_client_enters_ends_soon_and_an_entered_one_stays() -> None:
    clock = FakeClock()
    config = local(sweep_interval=0.01, test_room=True)
    async with Server(config, clock=clock) as server, http_of(server) as http:
        empty, used = [(await http.post("/room", json={"persistent": True})).json() for _ in range(2)]
        async with joined(server, f"/ws/{used['room_id']}"):
            pass
        clock.now += 3599
        assert (await http.get(f"/room/{empty['room_id']}")).status_code == 200
        clock.now += 1
        check_error(await http.get(f"/room/{empty['room_id']}"), 404, "no_such_room")
        for room_id in (used["room_id"], server.test_room_id):
            assert (await http.get(f"/room/{room_id}")).status_code == 200
        async with asyncio.timeout(5):
            while (await http.get("/status")).json()["rooms"] > 2:
                pass


ADMIN = {"Authorization": "Bearer operator"}


async def test_the_operator_sees_all_rooms_page_by_page_and_closes_any() -> None:
    clock = FakeClock()
    config = local(admin_token="operator", trusted_proxies=(ip_network("127.0.0.1"),))
    async with Server(config, clock=clock) as server, http_of(server) as http:
        headers = {"X-Forwarded-For": "192.0.2.7"}
        kept = (await http.post("/room", json={"persistent": True}, headers=headers)).json()["room_id"]
        async with joined(server) as sender, joined(server, f"/ws/{sender.room_id}") as receiver:
            await sender.expect("join")
            answer = await http.get("/rooms", headers=ADMIN)
            rooms = {room["room_id"]: room for room in answer.json()["rooms"]}
            assert rooms.keys() == {kept, sender.room_id}
            assert rooms[kept] == {
                "room_id": kept,
                "status": "waiting",
                "created_at": clock.now,
                "expires_at": clock.now + 30 * DAY,
                "persistent": True,
                "has_sender": False,
                "receivers": 0,
                "max_clients": 16,
                "entered": False,
                "empty_since": clock.now,
                "creator": "192.0.2.7",
            }
            busy = rooms[sender.room_id]
            assert (busy["receivers"], busy["entered"], busy["creator"]) == (1, True, None)
            assert sender.id not in answer.text

            response = await http.delete(f"/room/{sender.room_id}", headers=ADMIN)
            assert response.status_code == 204
            for client in (sender, receiver):
                await client.expect_error("room_closed", fatal=True)
                await client.expect_close(4410)
        made = {kept}
        for _ in range(6):
            made.add((await http.post("/room")).json()["room_id"])
        listed: list[str] = []
        query: dict[str, str | int] = {"limit": 3}
        while page := (await http.get("/rooms", params=query, headers=ADMIN)).json()["rooms"]:
            listed += [room["room_id"] for room in page]
            query["after"] = listed[-1]
        assert listed == sorted(made)


async def test_who_is_not_the_operator_sees_no_list(http: httpx.AsyncClient) -> None:
    check_error(await http.get("/rooms"), 404, "not_found")
    limits = replace(UNLIMITED, miss_rate=parse_rate("3/minute"))
    config = local(admin_token="operator", api_token="a", metrics_token="m", limits=limits)
    async with Server(config) as server, http_of(server) as stranger:
        assert (await stranger.get("/rooms", headers=ADMIN)).status_code == 200
        for headers in ({}, {"Authorization": "Bearer a"}, {"Authorization": "Bearer m"}):
            check_error(await stranger.get("/rooms", headers=headers), 401, "bad_token")
        # And it cannot go on guessing.
        check_error(await stranger.get("/rooms", headers=ADMIN), 429, "rate_limited")


async def test_rooms_that_nobody_enters_are_swept_away() -> None:
    clock = FakeClock()
    async with Server(local(sweep_interval=0.01), clock=clock) as server, http_of(server) as http:
        for _ in range(3):
            await http.post("/room")
        assert (await http.get("/status")).json()["rooms"] == 3
        clock.now += 600
        async with asyncio.timeout(5):
            while (await http.get("/status")).json()["rooms"]:
                pass


async def test_an_owner_closes_the_room_and_those_inside_are_told(
    server: Server, http: httpx.AsyncClient
) -> None:
    room = (await http.post("/room")).json()
    owner = {"Authorization": f"Bearer {room['owner_token']}"}
    path = f"/ws/{room['room_id']}"
    async with joined(server, path) as sender, joined(server, path) as receiver:
        await sender.expect("join")
        response = await http.delete(f"/room/{room['room_id'].lower()}", headers=owner)
        assert (response.status_code, response.content) == (204, b"")
        for client in (sender, receiver):
            await client.expect_error("room_closed", fatal=True)
            await client.expect_close(4410)
    check_error(await http.delete(f"/room/{room['room_id']}", headers=owner), 404, "no_such_room")


async def test_who_is_not_the_owner_learns_nothing_of_a_room(server: Server, http: httpx.AsyncClient) -> None:
    room, other = [(await http.post("/room")).json() for _ in range(2)]
    async with joined(server) as sender:
        # Made over the WebSocket, nobody has a token for it.
        rooms = [room["room_id"], sender.room_id, "ZZZZZZ", "nonsense"]
        tokens = ["guess", other["owner_token"], str(sender.joined["resume_token"])]
        answers = [
            await http.delete(f"/room/{room_id}", headers={"Authorization": f"Bearer {token}"})
            for room_id in rooms
            for token in tokens
        ]
        for response in answers:
            check_error(response, 404, "no_such_room")
            assert response.content == answers[0].content
        await sender.expect_silence()
    assert (await http.get(f"/room/{room['room_id']}")).status_code == 200


@pytest.mark.parametrize("room_id", ["known", "ZZZZZZ"])
async def test_closing_a_room_needs_a_token_whatever_the_room(http: httpx.AsyncClient, room_id: str) -> None:
    if room_id == "known":
        room_id = (await http.post("/room")).json()["room_id"]
    response = await http.delete(f"/room/{room_id}")
    check_error(response, 401, "bad_token")
    assert response.headers["WWW-Authenticate"] == "Bearer"
