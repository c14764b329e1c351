"""Where what is offered goes, over one connection after another."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

from flyx.client.receive import ReceiveOptions, ReceiveSession
from flyx.storage.pipe import PipeDestination
from flyx.storage.plan import ExistingPolicy
from flyx.storage.stream import StreamDestination
from flyx.storage.text import TextDestination
from flyx.storage.writer import Destination
from flyx.transfer.disk import PlanEntries, PlanTree
from flyx.transfer.manifest import Content
from tests.storage.support import file_entry, saved_paths, succeed
from tests.storage.test_stream import END, blocks_of


def session(directory: Path, descriptor: int | None = None) -> ReceiveSession:
    options = ReceiveOptions(
        server=None,
        room_id="K7M2QX",
        words=(),
        ask_words=None,
        directory=directory,
        existing=ExistingPolicy.REFUSE,
        confirm=None,
        descriptor=descriptor,
    )
    return ReceiveSession(options, cast(Any, None), lambda _: None)


def plan(name: str, content: Content = Content.STREAM) -> PlanTree:
    return PlanTree((name,), 0, f"id of {name}", content=content)


def test_each_content_has_its_sink(tmp_path: Path) -> None:
    assert type(session(tmp_path).sink_for(plan("a", Content.FILES))) is Destination
    assert type(session(tmp_path).sink_for(plan("a"))) is StreamDestination
    assert type(session(tmp_path).sink_for(plan("a", Content.TEXT))) is TextDestination
    null = os.open(os.devnull, os.O_WRONLY)
    try:
        assert type(session(tmp_path, null).sink_for(plan("a"))) is PipeDestination
        assert type(session(tmp_path, null).sink_for(plan("a", Content.FILES))) is PipeDestination
        assert type(session(tmp_path, null).sink_for(plan("a", Content.TEXT))) is TextDestination
    finally:
        os.close(null)


def test_the_next_connection_goes_on_with_what_the_last_one_began(tmp_path: Path) -> None:
    receiving = session(tmp_path)
    first = receiving.sink_for(plan("a"))
    assert receiving.sink_for(plan("a")) is first


def test_what_was_planned_of_one_stream_is_not_what_becomes_of_another(tmp_path: Path) -> None:
    """A sender could offer one name over a connection that is lost, and have a person accept another."""
    receiving = session(tmp_path)
    first = receiving.sink_for(plan(".bashrc"))
    first.apply([plan(".bashrc"), PlanEntries(0, [file_entry(".bashrc")])])
    second = receiving.sink_for(plan("photo.jpg"))
    assert isinstance(second, StreamDestination)
    outcomes = succeed(
        second, [plan("photo.jpg"), PlanEntries(0, [file_entry("photo.jpg")]), *blocks_of(b"x"), *END]
    )
    assert saved_paths(outcomes) == [str(tmp_path / "photo.jpg")]
    second.abandon()
