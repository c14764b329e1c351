"""What a room has the server send to the peers of a client about it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

from flyx.signaling.config import MAX_MESSAGE_SIZE
from flyx.signaling.members import Member
from flyx.signaling.messages import (
    Answer,
    AnswerData,
    Disconnect,
    DisconnectData,
    IceCandidate,
    IceCandidateData,
    IceServersData,
    Join,
    JoinData,
    Joined,
    JoinedData,
    Limits,
    Offer,
    OfferData,
    Peer,
    Relayed,
    Role,
)

CONNECTION_LOST = "the connection was lost"
CLIENT_LEFT = "it left"
"""Why a client has gone, if there is no better reason."""


def joined_of(
    member: Member,
    peers: Iterable[Member],
    *,
    room_id: str,
    expires_at: float | None,
    resume_token: str,
    ice: IceServersData,
    recovered: bool,
    received: int,
    max_clients: int,
    held_for: float,
) -> Joined:
    """Return what a client is told when it has come in, or back.

    Args:
        member: who has come.
        peers: those it can talk to.
        ice: what its connections may ask.
        expires_at: Unix time from which the room ends without a sender; None: never.
        received: messages that were taken from it in this session.
        held_for: seconds for which its place is held after its connection was lost.
    """
    return Joined(
        data=JoinedData(
            room_id=room_id,
            client_id=member.client_id,
            role=member.role,
            resume_token=resume_token,
            recovered=recovered,
            received=received,
            expires_at=expires_at,
            wants_paired=member.role is Role.SENDER,
            peers=as_peers(peers),
            ice_servers=ice.ice_servers,
            ice_servers_ttl=ice.ice_servers_ttl,
            limits=Limits(max_message_size=MAX_MESSAGE_SIZE, max_clients=max_clients, grace=held_for),
        )
    )


def as_peers(members: Iterable[Member]) -> tuple[Peer, ...]:
    """Return what a newcomer is told of those it can talk to."""
    return tuple(Peer(client_id=m.client_id, role=m.role, away=m.absence is not None) for m in members)


def join_of(member: Member, *, recovered: bool = False) -> Join:
    """Return what tells peers that member is here; recovered: it is back and lacks nothing."""
    return Join(data=JoinData(client_id=member.client_id, role=member.role, recovered=recovered))


def farewell_of(member: Member, reason: str, *, away: bool = False) -> Disconnect:
    """Return what tells peers that member has gone; away: it may come back."""
    return Disconnect(data=DisconnectData(client_id=member.client_id, reason=reason, away=away))


def stamped(message: Relayed, speaker: str) -> Relayed:
    """Return message with its true speaker, and without its target: other receivers need not know it."""
    data = message.data
    if data.client_id == speaker and (isinstance(data, AnswerData) or data.target_id is None):
        return message
    match data:
        case OfferData():
            return Offer(data=OfferData(client_id=speaker, sdp=data.sdp))
        case AnswerData():
            return Answer(data=AnswerData(client_id=speaker, sdp=data.sdp))
        case IceCandidateData():
            return IceCandidate(data=IceCandidateData(client_id=speaker, candidate=data.candidate))
        case _:
            assert_never(data)
