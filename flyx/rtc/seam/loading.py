"""Loads aiortc and aioice without what a data channel never uses: FFmpeg, and a library for DNS messages.

These two are half of the time that they take to load. While they load, stand-ins take the place of such
modules. Code that uses one of them afterwards - media of another part of this process, an mDNS candidate -
has it loaded then, and code that imports one gets the real one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

STAND_INS = (
    *("av", "av.frame", "av.packet", "av.video", "av.video.codeccontext"),
    *("dns.message", "dns.name", "dns.rdata", "dns.rdataset", "dns.zone"),
)
"""The modules that have one, a package before what is in it."""

IN_SIGNATURES = {
    "av": ("AudioFrame", "AudioResampler", "CodecContext", "VideoFrame"),
    "av.frame": ("Frame",),
    "av.packet": ("Packet",),
    "av.video.codeccontext": ("VideoCodecContext",),
}
"""The classes that aiortc takes from these modules while it loads: for signatures, and to make them later."""


class _StandIn(ModuleType):
    """A module that is loaded when an attribute of it is asked for that is not there."""

    def __getattr__(self, name: str) -> Any:
        # The machinery of imports asks for some, as of any module.
        if name.startswith("__") or sys.modules.get(self.__name__) is self:
            raise AttributeError(f"{self.__name__} stands in for a module, and has no {name}")
        return getattr(import_module(self.__name__), name)


class _Later(type):
    """The type of classes that stand in for those of a module, which is loaded when one is used."""

    def _real(cls) -> Any:
        return getattr(import_module(cls.__module__), cls.__name__)

    def __call__(cls, *args: Any, **options: Any) -> Any:
        return cls._real()(*args, **options)

    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, cls._real())

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(cls._real(), name)


def _stand_in(name: str) -> _StandIn:
    module = _StandIn(name)
    for each in IN_SIGNATURES.get(name, ()):
        setattr(module, each, _Later(each, (), {"__module__": name}))
    return module


@contextmanager
def stand_ins() -> Iterator[None]:
    """Have stand-ins in the place of the modules that are not loaded, as long as this context lasts."""
    placed = {name: _stand_in(name) for name in STAND_INS if name not in sys.modules}
    for name, module in placed.items():
        package, _, attribute = name.rpartition(".")
        if package:
            setattr(import_module(package), attribute, module)
        sys.modules[name] = module
    try:
        yield
    finally:
        for name in placed:
            del sys.modules[name]


with stand_ins():
    import aiortc  # noqa: F401  # to have it loaded so
