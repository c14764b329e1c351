"""What is not loaded for data channels, and is there nevertheless for whoever needs it."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest

from flyx.rtc.seam import loading

NOT_NEEDED = ("av", "dns.message", "dns.name", "dns.zone")


def run(code: str) -> str:
    """What a program prints, in a process of its own that has loaded nothing."""
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("module", ["peer", "sctp_transport", "dtls", "relays", "description", "seam"])
def test_a_connection_loads_neither_media_nor_dns_messages(module: str) -> None:
    said = run(
        f"import sys, flyx.rtc.{module}\nprint(*(each for each in {NOT_NEEDED!r} if each in sys.modules))"
    )
    assert said.split() == []


def test_media_of_somebody_else_in_the_same_process_work() -> None:
    said = run(
        "import asyncio, flyx.rtc.peer\n"
        "from aiortc import AudioStreamTrack, VideoStreamTrack, rtcrtpreceiver, rtcrtpsender\n"
        "from aiortc.codecs.g711 import PcmuDecoder, PcmuEncoder\n"
        "from aiortc.codecs.vpx import Vp8Encoder\n"
        "from aiortc.jitterbuffer import JitterFrame\n"
        "async def main():\n"
        "    sound = await AudioStreamTrack().recv()\n"
        "    assert isinstance(sound, (rtcrtpsender.Frame, rtcrtpsender.AudioFrame))\n"
        "    encoder, payloads = PcmuEncoder(), []\n"
        "    while not payloads:\n"
        "        payloads, timestamp = encoder.encode(sound)\n"
        "        sound.pts += sound.samples\n"
        "    decoded = PcmuDecoder().decode(JitterFrame(data=payloads[0], timestamp=timestamp))\n"
        "    picture = await VideoStreamTrack().recv()\n"
        "    assert not isinstance(picture, rtcrtpsender.AudioFrame)\n"
        "    compressed, _ = Vp8Encoder().encode(picture, force_keyframe=True)\n"
        "    print(decoded[0].samples, len(compressed) > 0, rtcrtpreceiver.av.FFmpegError.__name__)\n"
        "asyncio.run(main())\n"
        "import av, av.frame\n"
        "print(av.AudioFrame is av.audio.frame.AudioFrame, av.frame.Frame.__module__)\n"
    )
    assert said.splitlines() == ["160 True FFmpegError", "True av.frame"]


def test_names_of_mdns_are_resolved_as_ever() -> None:
    said = run(
        "import flyx.rtc.peer\n"
        "from aioice import mdns\n"
        "print(mdns.dns.message.make_query('a.local', 'A').question[0].name)\n"
        "import dns.message\n"
        "print(dns.message is mdns.dns.message, dns.message.__spec__ is not None)\n"
    )
    assert said.splitlines() == ["a.local.", "True True"]


def test_what_is_loaded_already_has_no_stand_in() -> None:
    said = run(
        "import av, dns.zone\n"
        "import flyx.rtc.peer\n"
        "from aiortc import mediastreams\n"
        "print(mediastreams.AudioFrame is av.AudioFrame, dns.zone.Zone.__name__)\n"
    )
    assert said.split() == ["True", "Zone"]


def test_only_while_aiortc_is_loaded_are_there_stand_ins() -> None:
    said = run(
        "import sys, flyx.rtc.seam\n"
        "from flyx.rtc.seam.loading import STAND_INS\n"
        "print(*(name for name in STAND_INS if name in sys.modules))\n"
    )
    assert said.split() == []


@pytest.mark.parametrize("name", loading.STAND_INS)
def test_a_stand_in_is_of_a_module_that_there_is_with_all_that_aiortc_takes_from_it(name: str) -> None:
    module = import_module(name)
    for each in loading.IN_SIGNATURES.get(name, ()):
        assert isinstance(getattr(module, each), type)


def test_a_name_that_aiortc_does_not_take_today_is_refused() -> None:
    said = run(
        "from flyx.rtc.seam.loading import stand_ins\n"
        "with stand_ins():\n"
        "    try:\n"
        "        from av import Subtitle\n"
        "    except ImportError as error:\n"
        "        print(error.name)\n"
    )
    assert said.split() == ["av"]
