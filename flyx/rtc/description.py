"""What a peer may say of itself in a session description (SDP) and in candidates.

Both come through a server, from a peer that has proved nothing yet. judge() is the only judge of a
description, RemoteCandidates the only one of candidates, whether they stand in a description or follow it
(trickle ICE, RFC 8838). What gets past them is bounded: in size, in the number of places that we send
datagrams to, and in what these places are.

RFC 8866 (SDP), RFC 8839 (ICE in SDP), RFC 8841 (SCTP in SDP), RFC 8842 (DTLS in SDP).
"""

from __future__ import annotations

import ipaddress
import re
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

from msgspec import Struct

from flyx.errors import RemoteProtocolError

if TYPE_CHECKING:
    from aiortc import RTCIceCandidate

MAX_DESCRIPTION_SIZE = 32 * 1024
"""Characters of a description. One with candidates of 100 interfaces has about 12,000."""

MAX_REMOTE_CANDIDATES = 128
"""Candidates taken of one peer: each is checked against each of ours, so a hostile list would be work, and
traffic to hosts that never asked for it."""

MAX_PORTS = 32
"""Of these at one address: behind one NAT each interface of a peer has a few."""

MAX_MDNS_CANDIDATES = 16
"""Of these by name: each is a multicast query. Browsers hide their host addresses behind such names."""

MDNS_SUFFIX = ".local "
"""How the name of a candidate ends that is looked up by multicast."""

MAX_FINGERPRINTS = 16

MAX_FIRST_MESSAGES = 4
"""Messages of the control channel that a description may have."""

CHANNELS = "channels"
"""The feature of those who know the channels of a transfer by their stream ids, and need no
DATA_CHANNEL_OPEN (RFC 8832): a flyx of either kind."""

EARLY_DATA = "early-data"
"""The feature of those who take DTLS on any candidate pair that works, before one is nominated."""

FEATURES = frozenset({CHANNELS, EARLY_DATA})
"""Those that we have."""

DEFAULT_MAX_MESSAGE_SIZE = 65536
"""What a peer accepts that does not say (RFC 8841 §6.1)."""

MAX_MESSAGE_SIZE = 256 * 1024
"""Bytes in a message to a peer that accepts as much or more: what libwebrtc and aiortc take at most."""

_PRINTABLE_LINES = re.compile(r"(?:[ -~]+\r?\n)+")
_MEDIA = re.compile(r"m=application \d{1,5} (?P<profile>(?:UDP/|TCP/)?DTLS/SCTP) (?P<format>\S+)")
_ICE_CHARACTERS = r"[A-Za-z0-9+/]"
_ATTRIBUTES = {
    "ice-ufrag": re.compile(_ICE_CHARACTERS + "{4,256}"),
    "ice-pwd": re.compile(_ICE_CHARACTERS + "{22,256}"),
    "fingerprint": re.compile(r"[A-Za-z0-9-]{1,16} (?:[0-9A-Fa-f]{2}:){15,63}[0-9A-Fa-f]{2}"),
    "setup": re.compile(r"active|passive|actpass"),
    "mid": re.compile(r"[!-~]{1,64}"),
    "sctp-port": re.compile(r"\d{1,5}"),
    "max-message-size": re.compile(r"\d{1,20}"),
    "sctp-init": re.compile(r"[A-Za-z0-9+/]{4,1024}={0,2}"),
    "flyx": re.compile(r"(?:offer|answer)(?: [a-z0-9-]{1,32}){0,16}"),
    "flyx-control": re.compile(r"(?:offer|answer) [A-Za-z0-9+/]{2,6000}={0,2}"),
}
"""The grammar of the values that we act on."""

_MOST_OF = {"fingerprint": MAX_FINGERPRINTS, "flyx-control": MAX_FIRST_MESSAGES}
"""How many there may be of those of which more than one may be."""

_REQUIRED = ("ice-ufrag", "ice-pwd", "fingerprint", "setup", "mid")
_PORTS = range(1, 65536)

_CANDIDATE = re.compile(
    _ICE_CHARACTERS + r"{1,32} 1 (?i:udp) (?P<priority>\d{1,10}) (?P<host>[0-9A-Za-z.:-]{1,253}) "
    r"(?P<port>\d{1,5}) typ (?:host|srflx|prflx|relay)(?P<rest>(?: [!-~]+ [!-~]+){0,16})"
)
_MDNS_NAME = re.compile(r"[0-9A-Za-z-]{1,63}\.local")


class Told(Struct, frozen=True):
    """What an end tells beforehand, so that less is left to agree on; who does not know of it goes in turn.

    Attributes:
        init_chunk: the INIT of its SCTP association (a=sctp-init, draft-hancke-tsvwg-snap-00).
        features: what it can do beyond WebRTC, if it is a flyx (a=flyx): CHANNELS, EARLY_DATA.
        messages: the first of its control channel, in order (a=flyx-control). An answer has some only if
            those of the offer were taken.
    """

    init_chunk: bytes | None = None
    features: frozenset[str] = frozenset()
    messages: tuple[str, ...] = ()


class Description(Struct, frozen=True):
    """A description that was judged.

    Attributes:
        sdp: what of it aiortc acts on for data channels, and nothing else; without candidates.
        max_message_size: bytes of the largest message to send, at most MAX_MESSAGE_SIZE.
        candidates: values of its candidate attributes, for RemoteCandidates.
        complete: no more candidates will follow.
        fingerprint: SHA-256 of its certificate; None if it claims others as well, or another digest.
        told: what lets the connection begin sooner.
    """

    sdp: str
    max_message_size: int
    candidates: tuple[str, ...]
    complete: bool
    fingerprint: bytes | None
    told: Told


def extend(sdp: str, kind: str, told: Told) -> str:
    """Return a description of ours with what lets the connection begin sooner.

    Args:
        sdp: its only section is that of data channels.
        kind: "offer" or "answer". It is said, as some peers answer with what they do not know of an offer.
        told: of an answer, no more than the offer has.
    """
    if told.init_chunk is not None:
        sdp += f"a=sctp-init:{b64encode(told.init_chunk).decode()}\r\n"
    if told.features:
        sdp += f"a=flyx:{kind} {' '.join(sorted(told.features))}\r\n"
    for message in told.messages:
        sdp += f"a=flyx-control:{kind} {b64encode(message.encode()).decode()}\r\n"
    return sdp


def judge(sdp: str, kind: str, *, min_message_size: int) -> Description:
    """Judge the description of a peer when it arrives: one section of data channels over DTLS and ICE.

    Args:
        sdp: as the peer gave it.
        kind: "offer" or "answer".
        min_message_size: bytes of the largest message that has to be sent to it whole.

    Raises:
        RemoteProtocolError: it is not such a description; the reason says what of it is wrong.
    """
    if len(sdp) > MAX_DESCRIPTION_SIZE:
        raise _bad(f"more than {MAX_DESCRIPTION_SIZE} characters")
    # A last line without its end is common; control characters and other alphabets are not.
    if not _PRINTABLE_LINES.fullmatch(sdp if sdp.endswith("\n") else f"{sdp}\n"):
        raise _bad("not lines of printable characters")
    lines = sdp.split("\n")
    lines = [line.removesuffix("\r") for line in lines if line]
    media = [line for line in lines if line.startswith("m=")]
    matched = _MEDIA.fullmatch(media[0]) if len(media) == 1 else None
    if matched is None:
        # Audio or video would make aiortc start codecs for a stranger.
        raise _bad("not exactly one section of data channels")
    values = _attributes(lines)
    port = matched["format"] if matched["profile"] == "DTLS/SCTP" else (values.get("sctp-port") or [""])[0]
    if not port.isdecimal() or int(port) not in _PORTS:
        raise _bad("no SCTP port")
    size = _max_message_size(values, min_message_size)
    kept = [
        *_HEAD,
        *(line for line in lines if line == "a=ice-lite"),
        f"a=group:BUNDLE {values['mid'][0]}",
        media[0],
        # Those of the session, too, which are of its only section.
        *(line for line in lines if _name(line) in _KEPT),
        f"a=max-message-size:{size}",
    ]
    return Description(
        "".join(f"{line}\r\n" for line in kept),
        size,
        tuple(line.removeprefix("a=candidate:") for line in lines if _name(line) == "candidate"),
        any(_name(line) == "end-of-candidates" for line in lines),
        _fingerprint(values),
        Told(_init_chunk(values), _features(values, kind), _messages(values, kind)),
    )


# What RFC 8866 wants of every description, and nobody acts on.
_HEAD = ("v=0", "o=- 0 0 IN IP4 0.0.0.0", "s=-", "t=0 0")
_KEPT = frozenset(_ATTRIBUTES) - {"max-message-size", "sctp-init", "flyx", "flyx-control"}


def _attributes(lines: Iterable[str]) -> dict[str, list[str]]:
    """Return the values of the attributes that we act on; session and section have one each at most."""
    values: dict[str, list[str]] = {}
    for line in lines:
        name = _name(line)
        if name in _ATTRIBUTES:
            value = line.partition(":")[2]
            if not _ATTRIBUTES[name].fullmatch(value):
                raise _bad(name)
            values.setdefault(name, []).append(value)
    for name, found in values.items():
        if len(found) > _MOST_OF.get(name, 1):
            raise _bad(f"{len(found)} {name}s" if name in _MOST_OF else f"{name} more than once")
    for name in _REQUIRED:
        if name not in values:
            raise _bad(f"no {name}")
    return values


def _name(line: str) -> str | None:
    """Return the name of an attribute; None if the line is none."""
    return line[2:].partition(":")[0] if line.startswith("a=") else None


def _max_message_size(values: dict[str, list[str]], smallest: int) -> int:
    """Bytes of the largest message to send (a=max-message-size, RFC 8841 §6); 0 says that any is accepted."""
    said = int(values.get("max-message-size", [str(DEFAULT_MAX_MESSAGE_SIZE)])[0]) or MAX_MESSAGE_SIZE
    if said < smallest:
        raise _bad(f"messages of {said} bytes at most, where {smallest} are needed")
    return min(said, MAX_MESSAGE_SIZE)


def _init_chunk(values: dict[str, list[str]]) -> bytes | None:
    if "sctp-init" not in values:
        return None
    try:
        return b64decode(values["sctp-init"][0], validate=True)
    except ValueError:
        raise _bad("sctp-init") from None


def _features(values: dict[str, list[str]], kind: str) -> frozenset[str]:
    said, *features = values.get("flyx", [kind])[0].split(" ")
    return frozenset(features if said == kind else ())


def _messages(values: dict[str, list[str]], kind: str) -> tuple[str, ...]:
    said = (value.split(" ") for value in values.get("flyx-control", ()))
    try:
        return tuple(b64decode(message, validate=True).decode() for whose, message in said if whose == kind)
    except ValueError:
        raise _bad("flyx-control") from None


def _fingerprint(values: dict[str, list[str]]) -> bytes | None:
    algorithm, _, digest = values["fingerprint"][0].partition(" ")
    value = bytes.fromhex(digest.replace(":", ""))
    is_it = len(values["fingerprint"]) == 1 and algorithm.lower() == "sha-256" and len(value) == 32
    return value if is_it else None


def _bad(what: str) -> RemoteProtocolError:
    return RemoteProtocolError(reason=f"a bad session description ({what})")


class RemoteCandidates:
    """Judges the candidates of one peer, in the order in which they come."""

    def __init__(self) -> None:
        self._taken = 0
        self._names = 0
        self._ports: Counter[str] = Counter()

    def judge(self, value: str, own_addresses: Iterable[str]) -> RTCIceCandidate | None:
        """Return a candidate that may be tried; None for one that is malformed, unwanted or one too many.

        Loopback and link-local addresses are tried only if one of ours is of that kind: elsewhere they are
        hosts of our own, or of our own link, that a stranger would have us send to. Link-local addresses of
        IPv4 and of IPv6 are two kinds: a machine may have those of IPv6 only, and clouds have services of
        their own behind those of IPv4.

        Args:
            value: of a candidate attribute (RFC 8839 §5.1), with or without "candidate:".
            own_addresses: of our host candidates.
        """
        from aiortc.sdp import candidate_from_sdp

        self._taken += 1
        matched = _CANDIDATE.fullmatch(value.removeprefix("candidate:").strip())
        if self._taken > MAX_REMOTE_CANDIDATES or matched is None:
            return None
        if int(matched["port"]) not in _PORTS or not 0 < int(matched["priority"]) < 1 << 32:
            return None
        if not self._may_be_sent_to(matched["host"], own_addresses):
            return None
        try:
            return candidate_from_sdp(matched[0])
        except ValueError:
            # In what follows the type: a related port that is no number.
            return None

    def _may_be_sent_to(self, host: str, own_addresses: Iterable[str]) -> bool:
        if _MDNS_NAME.fullmatch(host):
            self._names += 1
            return self._names <= MAX_MDNS_CANDIDATES
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        self._ports[address.exploded] += 1
        if self._ports[address.exploded] > MAX_PORTS:
            return False
        kind = _kind(address)
        return kind == "" or (
            kind in _KINDS_OF_OUR_OWN
            and any(_kind(ipaddress.ip_address(own)) == kind for own in own_addresses)
        )


def _kind(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """Return what is special about an address; empty for one that any other host may have."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return "mapped"
    if address.is_loopback:
        return "loopback"
    if address.is_link_local:
        return f"link-local {address.version}"
    if address.is_multicast or address.is_unspecified or address == _BROADCAST:
        return "no host"
    return ""


_KINDS_OF_OUR_OWN = frozenset({"loopback", "link-local 4", "link-local 6"})
_BROADCAST = ipaddress.IPv4Address("255.255.255.255")
