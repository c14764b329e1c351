"""What a peer may say of itself: descriptions of real stacks pass, and no change to one does harm."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from aioice import Candidate
from aiortc.sdp import SessionDescription
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flyx.errors import FlyxError, RemoteProtocolError
from flyx.rtc import peer
from flyx.rtc.description import (
    CHANNELS,
    DEFAULT_MAX_MESSAGE_SIZE,
    EARLY_DATA,
    MAX_DESCRIPTION_SIZE,
    MAX_MDNS_CANDIDATES,
    MAX_MESSAGE_SIZE,
    MAX_PORTS,
    MAX_REMOTE_CANDIDATES,
    Description,
    RemoteCandidates,
    Told,
    extend,
    judge,
)
from flyx.rtc.peer import PeerConnection
from tests.thoroughness import share

SMALLEST = 60_000
LAN = ["10.0.0.2"]

FINGERPRINT = "sha-256 " + ":".join(["AB"] * 32)
# As Chromium 156 and Firefox 153 write them, their random parts replaced.
CHROMIUM = f"""v=0
o=- 4611731400430051336 2 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0
a=extmap-allow-mixed
a=msid-semantic: WMS
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=candidate:1467250027 1 udp 2122260223 192.0.2.7 46243 typ host generation 0 network-id 1 network-cost 10
a=ice-ufrag:F7gI
a=ice-pwd:x9cml/YzichV2+XlhiMu8gdF
a=ice-options:trickle
a=fingerprint:{FINGERPRINT}
a=setup:active
a=mid:0
a=sctp-port:5000
a=max-message-size:262144
"""
FIREFOX = f"""v=0
o=mozilla...THIS_IS_SDPARTA-153.0 4294967295 0 IN IP4 0.0.0.0
s=-
t=0 0
a=fingerprint:{FINGERPRINT}
a=group:BUNDLE 0
a=ice-options:trickle
a=msid-semantic:WMS *
m=application 9 UDP/DTLS/SCTP webrtc-datachannel
c=IN IP4 0.0.0.0
a=candidate:0 1 UDP 2122252543 6f2ae2cb-8ef3-4bbd-9c3c-0e3a2e6e3c4d.local 55501 typ host
a=candidate:1 1 TCP 2105524479 6f2ae2cb-8ef3-4bbd-9c3c-0e3a2e6e3c4d.local 9 typ host tcptype active
a=sendrecv
a=end-of-candidates
a=ice-pwd:0123456789abcdef0123456789abcdef
a=ice-ufrag:01234567
a=mid:0
a=setup:active
a=sctp-port:5000
a=max-message-size:1073741823
"""


def judged(sdp: str) -> Description:
    return judge(sdp, "offer", min_message_size=SMALLEST)


def lines(value: str, name: str) -> list[str]:
    """The lines of a description that set this attribute."""
    return [line for line in value.splitlines() if line.startswith(f"a={name}:")]


def with_size(text: str) -> str:
    return CHROMIUM.replace("a=max-message-size:262144", f"a=max-message-size:{text}")


@pytest.mark.parametrize("sdp", [CHROMIUM, FIREFOX])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_browsers_say_passes_and_its_candidates_stand_apart(sdp: str, end: str) -> None:
    description = judged(sdp.replace("\n", end))
    assert description.max_message_size == MAX_MESSAGE_SIZE
    assert description.complete is (sdp is FIREFOX)
    assert [f"a=candidate:{each}" for each in description.candidates] == lines(sdp, "candidate")
    assert "candidate" not in description.sdp
    assert SessionDescription.parse(description.sdp).media[0].ice_candidates == []


@pytest.mark.parametrize(
    ("said", "size"),
    [("60000", 60_000), ("65536", 65_536), ("0", MAX_MESSAGE_SIZE), (str(1 << 63), MAX_MESSAGE_SIZE)],
)
def test_a_usable_size_of_messages_is_taken_up_to_ours(said: str, size: int) -> None:
    description = judged(with_size(said))
    assert description.max_message_size == size
    assert lines(description.sdp, "max-message-size") == [f"a=max-message-size:{size}"]


def test_a_peer_that_says_no_size_of_messages_takes_the_default() -> None:
    assert judged("".join(CHROMIUM.splitlines(True)[:-1])).max_message_size == DEFAULT_MAX_MESSAGE_SIZE


@pytest.mark.parametrize("said", ["1", "60", "600", "59999", "-1", "", "+70000", "7e4", "9" * 40, "٣٣٣٣٣٣"])
def test_a_size_of_messages_that_is_none_or_too_small_is_refused(said: str) -> None:
    with pytest.raises(RemoteProtocolError):
        judged(with_size(said))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("m=application", "m=audio 9 UDP/TLS/RTP/SAVPF 0\nm=application"),
        ("m=application", "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\nm=application"),
        ("m=application", "m=audio"),
        ("a=ice-pwd:x9cml/YzichV2+XlhiMu8gdF\n", ""),
        ("a=ice-pwd:x9cml/YzichV2+XlhiMu8gdF", "a=ice-pwd:short"),
        ("a=ice-ufrag:F7gI", "a=ice-ufrag:" + "F" * 257),
        ("a=mid:0", "a=mid:0\na=mid:1"),
        ("a=sctp-port:5000", "a=sctp-port:70000"),
        ("a=sctp-port:5000", "a=sctp-port:0"),
        ("a=sctp-port:5000\n", ""),
        ("a=setup:active", "a=setup:holdconn"),
        (f"a=fingerprint:{FINGERPRINT}", "a=fingerprint:sha-256"),
        (f"a=fingerprint:{FINGERPRINT}\n", f"a=fingerprint:{FINGERPRINT}\n" * 17),
        ("s=-", "s=\x1b[2J"),
        ("s=-", "s=é"),
        ("s=-", "s=" + "x" * MAX_DESCRIPTION_SIZE),
        ("a=max-message-size:262144", "a=max-message-size:262144\na=max-message-size:1"),
    ],
)
def test_a_description_of_anything_else_is_refused_with_its_reason(old: str, new: str) -> None:
    assert old in CHROMIUM
    with pytest.raises(RemoteProtocolError, match=r"a bad session description \(.+\)"):
        judged(CHROMIUM.replace(old, new))


def test_what_an_end_tells_beforehand_is_taken_and_not_shown_to_aiortc() -> None:
    told = Told(b"\x01\x00\x00\x04", frozenset({CHANNELS, EARLY_DATA}), ("first", '{"é": "☃"}'))
    description = judged(extend(CHROMIUM, "offer", told))
    assert description.told == told
    assert description.sdp == judged(CHROMIUM).sdp
    assert judged(CHROMIUM).told == judged(extend(CHROMIUM, "offer", Told())).told == Told()


def test_what_comes_back_of_our_offer_in_an_answer_is_nothing() -> None:
    echo = extend(CHROMIUM, "offer", Told(features=frozenset({CHANNELS}), messages=("first",)))
    assert judge(echo, "answer", min_message_size=SMALLEST).told == Told()


def test_a_certificate_is_known_if_its_sha_256_alone_is_claimed() -> None:
    assert judged(CHROMIUM).fingerprint == b"\xab" * 32
    line = f"a=fingerprint:{FINGERPRINT}\n"
    for other in (line * 2, line.replace("sha-256", "sha-512"), line.replace(":AB\n", "\n")):
        assert judged(CHROMIUM.replace(line, other)).fingerprint is None


@pytest.mark.parametrize(
    "line",
    [
        "a=sctp-init:AQ",
        "a=sctp-init:AQAABA=",
        "a=sctp-init:" + "A" * 1028,
        "a=sctp-init:AQAA\na=sctp-init:AQAA",
        "a=flyx:maybe channels",
        "a=flyx:offer Channels",
        "a=flyx:offer" + " x" * 17,
        "a=flyx:offer\na=flyx:offer",
        "a=flyx-control:Zmlyc3Q=",
        "a=flyx-control:offer Zmlyc3Q",
        "a=flyx-control:offer /w==",
        "a=flyx-control:offer " + "A" * 6004,
        "\n".join(["a=flyx-control:offer Zmlyc3Q="] * 5),
    ],
)
def test_what_is_told_beforehand_in_another_grammar_is_refused(line: str) -> None:
    with pytest.raises(RemoteProtocolError, match=r"a bad session description \(.+\)"):
        judged(f"{CHROMIUM}{line}\n")


def candidate(host: str, port: int = 5000) -> str:
    return f"candidate:1 1 udp 2122260223 {host} {port} typ host"


@pytest.mark.parametrize("host", ["192.0.2.1", "10.0.0.1", "2001:db8::1", "fd00::1", "a-b.local"])
def test_a_candidate_elsewhere_is_tried(host: str) -> None:
    taken = RemoteCandidates().judge(candidate(host), LAN)
    assert taken is not None
    assert (taken.ip, taken.port) == (host, 5000)


@pytest.mark.parametrize(
    ("host", "ours"), [("127.0.0.1", "127.0.0.1"), ("169.254.3.4", "169.254.9.9"), ("fe80::1", "fe80::2")]
)
def test_loopback_and_link_local_are_tried_only_if_ours_are(host: str, ours: str) -> None:
    assert RemoteCandidates().judge(candidate(host), LAN) is None
    assert RemoteCandidates().judge(candidate(host), [*LAN, ours]) is not None


@pytest.mark.parametrize(
    "value",
    [
        *(candidate(host) for host in ("0.0.0.0", "::", "224.0.0.251", "ff02::fb", "255.255.255.255")),
        *(candidate(host) for host in ("::ffff:127.0.0.1", "::ffff:192.0.2.1", "x.org", "192.0.2.1.", "1")),
        *(candidate("192.0.2.1", port) for port in (0, 65536, 99999)),
        "candidate:1 2 udp 2122260223 192.0.2.1 5000 typ host",
        "candidate:1 1 tcp 2122260223 192.0.2.1 5000 typ host tcptype active",
        "candidate:1 1 udp 99999999999999 192.0.2.1 5000 typ host",
        "candidate:1 1 udp 1 192.0.2.1 5000 typ relay raddr 10.0.0.1 rport x",
        "candidate:1 1 udp 1 192.0.2.1 5000 typ host rport 1 rport x",
        "candidate:1 1 udp 1 192.0.2.1 5000 typ host rport " + "1" * 5000,
        "candidate:1 1 udp 1 192.0.2.1 5000 typ other",
        "candidate:" + "1" * 33 + " 1 udp 1 192.0.2.1 5000 typ host",
        "candidate:1 1 udp 1 192.0.2.1 5000 typ host" + " a b" * 17,
        "",
    ],
)
def test_a_candidate_that_is_none_or_nobodys_is_not_tried(value: str) -> None:
    assert RemoteCandidates().judge(value, LAN) is None


def test_a_peer_has_so_many_candidates_wherever_they_stand() -> None:
    candidates = RemoteCandidates()
    hosts = [f"198.51.100.{n}" for n in range(256)] * 4
    assert sum(candidates.judge(candidate(host), LAN) is not None for host in hosts) == MAX_REMOTE_CANDIDATES


def test_one_address_has_so_many_ports_however_it_is_written() -> None:
    candidates = RemoteCandidates()
    hosts = ["2001:db8::1", "2001:DB8:0::0:1"] * MAX_PORTS
    tried = [candidates.judge(candidate(host, port), LAN) for port, host in enumerate(hosts, 1000)]
    assert sum(each is not None for each in tried) == MAX_PORTS


def test_no_more_names_of_candidates_than_the_bound_are_looked_up() -> None:
    candidates = RemoteCandidates()
    tried = [candidates.judge(candidate(f"{n}.local"), LAN) for n in range(3 * MAX_MDNS_CANDIDATES)]
    assert sum(each is not None for each in tried) == MAX_MDNS_CANDIDATES


# Values that break parsers, and any text at all.
_WORDS = st.sampled_from(
    ["", "-1", "0", "600", "x", "1" * 400, "a=candidate:" + candidate("192.0.2.1"), "m=audio 9 RTP/AVP 0"]
) | st.text(max_size=40)


@st.composite
def changed(draw: st.DrawFn, sdp: str) -> str:
    """This description with one line replaced, cut, repeated, moved or left out, or a word of it changed."""
    parts = sdp.splitlines(True)
    at = draw(st.integers(0, len(parts) - 1))
    line = parts[at].rstrip("\r\n")
    head, colon, tail = line.partition(":")
    match draw(st.sampled_from(["replace", "word", "cut", "repeat", "move", "leave out"])):
        case "replace":
            parts[at] = draw(_WORDS) + "\r\n"
        case "word":
            words = tail.split(" ") if colon else line.split(" ")
            words[draw(st.integers(0, len(words) - 1))] = draw(_WORDS)
            parts[at] = head + colon + " ".join(words) + "\r\n" if colon else " ".join(words) + "\r\n"
        case "cut":
            parts[at] = line[: draw(st.integers(0, len(line)))] + "\r\n"
        case "repeat":
            parts[at] *= draw(st.sampled_from([2, 3, 900]))
        case "move":
            parts.insert(draw(st.integers(0, len(parts) - 1)), parts.pop(at))
        case _:
            del parts[at]
    return "".join(parts)


@given(sdp=changed(CHROMIUM) | changed(FIREFOX) | st.text())
def test_any_change_is_refused_by_name_or_leaves_what_aiortc_reads(sdp: str) -> None:
    try:
        description = judged(sdp)
    except RemoteProtocolError:
        return
    assert SMALLEST <= description.max_message_size <= MAX_MESSAGE_SIZE
    (media,) = SessionDescription.parse(description.sdp).media
    assert (media.kind, media.ice_candidates) == ("application", [])
    assert media.sctpCapabilities is not None
    assert media.sctpCapabilities.maxMessageSize == description.max_message_size
    candidates = RemoteCandidates()
    tried = [taken for value in description.candidates if (taken := candidates.judge(value, LAN))]
    assert len(tried) <= MAX_REMOTE_CANDIDATES


@given(value=st.text() | changed(candidate("192.0.2.1") + " generation 0 raddr 10.0.0.1 rport 9"))
def test_any_candidate_is_left_out_or_one_that_aioice_reads(value: str) -> None:
    taken = RemoteCandidates().judge(value, LAN)
    if taken:
        assert 0 < taken.port < 65536
        assert Candidate.from_sdp(value.removeprefix("candidate:")).host == taken.ip


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Connections that come about do so at once here."""
    with monkeypatch.context() as patched:
        patched.setattr(peer, "CONNECT_TIMEOUT", 1.0)
        yield


@pytest.mark.usefixtures("hurried")
@settings(
    max_examples=share(40),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_whatever_line_of_an_answer_changes_both_connect_or_one_names_why(data: st.DataObject) -> None:
    async def attempt() -> None:
        ends = [PeerConnection(("control", "data"), [], lambda _: None) for _ in range(2)]
        try:
            answer = await ends[1].answer(await ends[0].offer())
            await ends[0].accept_answer(data.draw(changed(answer)))
            channels = await ends[0].connected()
            assert channels.max_message_size > 0
        except FlyxError:
            pass
        finally:
            for end in ends:
                await end.close()

    asyncio.run(attempt())
