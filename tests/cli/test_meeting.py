"""Which server is asked, and whether the local network is."""

from __future__ import annotations

import pytest

from flyx.cli.meeting import choose
from flyx.cli.settings import Source
from flyx.client.meeting import DEFAULT_SERVER, Meeting
from flyx.errors import InputError

URL = "wss://flyx.example.org"
SAID = [Source.FILE, Source.ENVIRONMENT, Source.COMMAND_LINE]


def test_without_a_word_localhost_is_asked_and_then_the_local_network() -> None:
    assert choose(None, None, Source.NOBODY, Source.NOBODY) == Meeting(DEFAULT_SERVER, True)


@pytest.mark.parametrize("source", SAID)
def test_a_server_that_was_named_wins(source: Source) -> None:
    assert choose(URL, None, source, Source.NOBODY) == Meeting(URL, False)
    assert choose(DEFAULT_SERVER, None, source, Source.NOBODY) == Meeting(DEFAULT_SERVER, False)


@pytest.mark.parametrize("source", SAID)
def test_local_is_without_any_server_and_no_local_without_the_network(source: Source) -> None:
    assert choose(None, True, Source.NOBODY, source) == Meeting(None, True)
    assert choose(None, False, Source.NOBODY, source) == Meeting(DEFAULT_SERVER, False)


@pytest.mark.parametrize("server_from", SAID)
@pytest.mark.parametrize("local_from", SAID)
def test_of_a_server_and_local_the_one_said_in_the_stronger_place_wins(
    server_from: Source, local_from: Source
) -> None:
    assert choose(URL, False, server_from, local_from) == Meeting(URL, False)
    if server_from == local_from:
        with pytest.raises(InputError, match="exclude each other"):
            choose(URL, True, server_from, local_from)
    else:
        expected = Meeting(URL, False) if server_from > local_from else Meeting(None, True)
        assert choose(URL, True, server_from, local_from) == expected
