"""What all unit tests share."""

from __future__ import annotations

import socket

import pytest

# Sets how many examples Hypothesis tries, before any test is made.
import tests.thoroughness  # noqa: F401
from tests.net.names import Names


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """The name service of this process."""
    fake = Names()
    monkeypatch.setattr(socket, "getaddrinfo", fake.getaddrinfo)
    return fake
