"""Every error a person or a script can meet, with its code, exit status and hint.

    FlyxError
    ├── LocalProtocolError        our own code broke a rule: a bug
    ├── RemoteProtocolError       the other side broke a rule
    ├── InputError                a path, an option or a code that cannot be used
    ├── SignalingError            the server refused, or is not there (exit 3)
    │   ├── ServerUnreachable
    │   ├── ServerClosed
    │   ├── NoSuchRoom
    │   │   └── RoomNotFound
    │   ├── SenderLeft
    │   ├── RoomFull
    │   ├── RoomTaken
    │   ├── RoomLost
    │   │   └── SenderGone
    │   ├── ServerRefused
    │   └── ServerProtocolError
    ├── PeerUnreachable           no path to the other side (exit 4)
    ├── NoRelay                   --relay-only, and no relay (exit 4)
    ├── NobodyCame                (exit 4)
    ├── PairingFailed             the two sides could not prove to share a code (exit 5)
    │   ├── WrongWords
    │   ├── TooManyTries
    │   ├── TooManyUnfinished
    │   ├── ConnectionMismatch
    │   ├── OtherVersion
    │   ├── MissingFeature
    │   ├── NoWordsAsked
    │   └── PairingTimedOut
    ├── TransferInterrupted       the other side went away too early (exit 6)
    │   └── ConnectionLost
    ├── TransferRefused           a person or a policy refused (exit 7)
    │   ├── Declined
    │   ├── NothingWanted
    │   ├── NotOneFile
    │   ├── ConsentNeeded
    │   ├── UnverifiedSender
    │   ├── DestinationExists
    │   ├── UnsafeName
    │   └── NoSpace
    ├── FilesFailed               some files could not be delivered
    ├── NothingToSend             what a receiver was to get is gone
    ├── StreamBegun               its beginning is
    ├── SystemFailure             this machine has too little of something
    ├── StorageError              the disk failed
    └── CorruptData               bytes arrived that are not the bytes sent

A class's docstring is the message that people read: fields given to the constructor fill its braces. `code`
is stable, for scripts and for the wire. Text that came from elsewhere is a field, so that it passes through
`printable` on its way into the message.
"""

from __future__ import annotations

import errno
import inspect
import re
import unicodedata
from typing import ClassVar

# Exit statuses, as documented in docs/scripting.md.
EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_SERVER = 3
EXIT_NO_PATH = 4
EXIT_PAIRING = 5
EXIT_INTERRUPTED = 6
EXIT_REFUSED = 7
EXIT_CTRL_C = 130

MAX_SHOWN = 600
"""Characters of one field that a message repeats."""

_HARMLESS_FORMAT_CHARACTERS = frozenset("\u200c\u200d") | {chr(c) for c in range(0xE0020, 0xE0080)}
"""Format characters that only choose how a glyph looks or joins; emoji and many scripts need them."""


def printable(text: str) -> str:
    """Return text with everything that could steer a terminal or fake its layout escaped.

    Control, bidirectional, other format, line-separating, surrogate, private and unassigned characters become
    `\\xNN`, `\\uNNNN` or `\\UNNNNNNNN`; a backslash is doubled, so that the result is unambiguous.
    """
    if text.isascii() and text.isprintable() and "\\" not in text:
        return text
    return "".join(_printable_character(c) for c in text)


def without_controls(text: str) -> str:
    """Return text with what printable() escapes escaped, except backslashes; twice is the same as once.

    For lines about to be shown, whose parts from elsewhere went through printable() before, or should have.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c == "\\" else _printable_character(c) for c in text)


_UNITS = ("kB", "MB", "GB", "TB", "PB", "EB")


def size_text(size: int) -> str:
    """Return a size in bytes as people write it: three digits, in powers of 1,000, such as 12.3 MB."""
    if size < 1000:
        return "1 byte" if size == 1 else f"{size} bytes"
    value, units = size / 1000, iter(_UNITS)
    unit = next(units)
    # What is rounded to 1,000 is 1 of the next unit.
    while value >= 999.5 and unit != _UNITS[-1]:
        value, unit = value / 1000, next(units)
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:,.{digits}f} {unit}"


def _printable_character(character: str) -> str:
    if character == "\\":
        return "\\\\"
    if character == " " or character in _HARMLESS_FORMAT_CHARACTERS:
        return character
    if unicodedata.category(character)[0] in "CZ":
        return character.encode("unicode_escape").decode("ascii")
    return character


_CREDENTIALS = re.compile(r"(?<=://)(?:[^\s/?#@]*|[^\s/?#:@[]*:(?!\d{1,5}(?:[/?#]|$))\S*)@")
"""Up to the @: what has a scheme before it, or a colon that begins no port."""


def without_credentials(text: str) -> str:
    """Return text without what stands before the @ of the URLs in it: a name and a password may."""
    return _CREDENTIALS.sub("", text)


def _shortened(text: str) -> str:
    """Leave the middle out of what is longer than a message should be: names of a stranger may be."""
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN // 2]}…{text[-MAX_SHOWN // 2 :]}"


ASK_FOR_ANOTHER = "ask the sender for a new code"
"""What a receiver can do about a code that is good no more; it runs no `flyx send` itself."""


class FlyxError(Exception):
    """Something went wrong: {reason}"""

    code: ClassVar[str] = "failed"
    exit_status: ClassVar[int] = EXIT_FAILED
    hint: str | None = None
    # Whether a sender takes no more receivers after it.
    closes_room: ClassVar[bool] = False
    # The text for the other side, where the message would show it paths of this machine.
    for_peer: ClassVar[str | None] = None

    def __init__(self, *, hint: str | None = None, **fields: object) -> None:
        super().__init__()
        self.fields = fields
        if hint is not None:
            self.hint = hint

    def __str__(self) -> str:
        message = inspect.getdoc(type(self)) or type(self).__name__
        template = " ".join(message.split("\n\n", 1)[0].split())
        shown = {
            key: value
            if isinstance(value, int | float)
            else _shortened(printable(without_credentials(str(value))))
            for key, value in self.fields.items()
        }
        return template.format_map(shown)


class LocalProtocolError(FlyxError):
    """flyx made a mistake: {reason}"""

    code = "bug"
    hint = "this is a bug; run again with --debug and report what it prints"


class RemoteProtocolError(FlyxError):
    """The other side broke the protocol: {reason}"""

    code = "protocol_error"
    hint = "the two sides may run different versions of flyx; compare `flyx --version`"


class InputError(FlyxError):
    """{reason}"""

    code = "bad_input"
    exit_status = EXIT_USAGE


class SignalingError(FlyxError):
    """The signaling server failed: {reason}"""

    code = "server_error"
    exit_status = EXIT_SERVER
    # Seconds after which the server may be asked again, as it says itself.
    retry_after: float = 0.0


class ServerUnreachable(SignalingError):
    """Cannot reach the signaling server {url}: {reason}"""

    code = "server_unreachable"
    hint = "start one with `flyx serve`, or name another with --server or FLYX_SERVER"
    # Whether it may be there later; else what was named is no flyx server, or not to be trusted.
    may_pass: bool = True


class ServerClosed(SignalingError):
    """The signaling server closed the connection: {reason}"""

    code = "server_closed"
    hint = "try again in a moment"


class NoSuchRoom(SignalingError):
    """No sender is waiting under the code {room_id}."""

    code = "no_such_room"
    hint = "check the code; it is good only while its `flyx send` is running, and only on the same server"


class RoomNotFound(NoSuchRoom):
    """No sender is waiting under the code {room_id}; it was looked for {where}."""

    code = "room_not_found"
    hint = (
        "check the code, and that its `flyx send` is still running; if that is on another network, both need "
        "--server with a `flyx serve` that both reach"
    )


class SenderLeft(SignalingError):
    """The sender left before it came to us."""

    code = "sender_left"
    hint = "ask for a new code, and for `flyx send --receivers` with the number of receivers"


class RoomFull(SignalingError):
    """The room {room_id} already has as many clients as it may have."""

    code = "room_full"
    hint = "try again when another receiver has finished"


class RoomTaken(SignalingError):
    """The room {room_id} is taken."""

    code = "room_taken"
    hint = (
        "by somebody else, or by an earlier sender of yours: a killed one holds it for 30 s (--grace of the "
        "server), one whose computer lost power or network for its own --reconnect, by default 2 hours"
    )


class RoomLost(SignalingError):
    """The room is gone: {reason}"""

    code = "room_lost"
    hint = "start again, with a new code"


class SenderGone(RoomLost):
    """The program that served the room has ended, and nothing listens there any more."""

    code = "sender_gone"
    hint = ASK_FOR_ANOTHER


class ServerRefused(SignalingError):
    """The signaling server refused: {reason}"""

    code = "server_refused"


class ServerProtocolError(SignalingError):
    """The signaling server broke the protocol: {reason}"""

    code = "server_protocol_error"
    hint = "it may run another version of flyx, or be no flyx server; name another with --server"


class PeerUnreachable(FlyxError):
    """No connection to the other side: {reason}"""

    code = "peer_unreachable"
    exit_status = EXIT_NO_PATH
    hint = "try again; `flyx doctor` on either side shows what its network lets through"


class NoRelay(FlyxError):
    """There is no relay to go through, and --relay-only allows no other way."""

    code = "no_relay"
    exit_status = EXIT_NO_PATH
    hint = "name a TURN server with --ice-server, or take a signaling server that has one (flyx serve --turn)"


class NobodyCame(FlyxError):
    """No receiver finished within {seconds:g} s of waiting."""

    code = "nobody_came"
    exit_status = EXIT_NO_PATH


class PairingFailed(FlyxError):
    """Pairing failed: {reason}"""

    code = "pairing_failed"
    exit_status = EXIT_PAIRING


class WrongWords(PairingFailed):
    """Pairing failed: the words of the two sides do not match."""

    code = "wrong_words"
    hint = "check each word; if the sender saw no try of yours, somebody else answered in its place"


class TooManyTries(PairingFailed):
    """Wrong words were given {tries} times: the code has stopped working."""

    code = "too_many_tries"
    closes_room = True
    hint = "somebody may be guessing; run `flyx send` again for a new code, with --words 3 or more"


class TooManyUnfinished(PairingFailed):
    """{count} times in a row a receiver began to pair and did not finish: the code has stopped working."""

    code = "too_many_unfinished"
    closes_room = True
    hint = "somebody may be keeping the sender busy; run `flyx send` again for a new code"


class ConnectionMismatch(PairingFailed):
    """The words are right, but the two sides see different connections: somebody may be in between."""

    code = "connection_mismatch"
    closes_room = True
    hint = "nothing was sent; do not trust this signaling server or network, run `flyx serve` yourself"


class OtherVersion(PairingFailed):
    """The other side speaks version {theirs} of flyx's protocol, this one version {ours}: upgrade {older}."""

    code = "other_version"
    hint = "bring both sides to the same release; compare `flyx --version`"


class MissingFeature(PairingFailed):
    """The two sides cannot work together: {whose} flyx lacks {features}."""

    code = "missing_feature"
    hint = "bring both sides to the same release; compare `flyx --version`"


class NoWordsAsked(PairingFailed):
    """The code has words, but who answered asks for none."""

    code = "no_words_asked"
    hint = "somebody else may have answered; nothing was received. Ask the sender for its code again"


class PairingTimedOut(PairingFailed):
    """Pairing failed: the other side did not answer within {seconds:g} s."""

    code = "pairing_timed_out"


class TransferInterrupted(FlyxError):
    """The transfer was interrupted: {reason}"""

    code = "interrupted"
    exit_status = EXIT_INTERRUPTED
    hint: str | None = "what has arrived is kept; receive into the same directory again to go on from there"


class ConnectionLost(TransferInterrupted):
    """The transfer was interrupted: {reason}"""

    # Unlike other interruptions, one that a new connection repairs.
    code = "connection_lost"


class TransferRefused(FlyxError):
    """The transfer was refused: {reason}"""

    code = "refused"
    exit_status = EXIT_REFUSED


class Declined(TransferRefused):
    """The transfer was declined."""

    code = "declined"


class NothingWanted(TransferRefused):
    """Nothing of what the sender offers is wanted: --only matches none of it."""

    code = "nothing_wanted"
    for_peer = "it wants nothing of what is offered"
    hint = "patterns are those of .gitignore, for paths as the sender has them: '*.jpg', photos/2024"


class NotOneFile(TransferRefused):
    """What is offered is not one file, and standard output takes one."""

    code = "not_one_file"
    for_peer = "it wants one file"
    hint = "choose one with --only, or receive into a directory with -o DIR"


class ConsentNeeded(TransferRefused):
    """Nobody can be asked whether to accept these files: standard input is not a terminal."""

    code = "consent_needed"
    for_peer = "nobody is there to accept it"
    hint = "add --yes to accept whatever is offered"


class UnverifiedSender(TransferRefused):
    """The sender asks for no words, so that nothing but the server says who it is."""

    code = "unverified_sender"
    for_peer = "the code has no words, and the server is not trusted there"
    hint = "ask the sender for its whole code; if it runs `flyx send --open`, --open trusts the server"


class DestinationExists(TransferRefused):
    """{path}{others} already {exist}."""

    code = "destination_exists"
    for_peer = "something of the same name is already there"
    hint = (
        "add --overwrite to replace what exists, --rename to keep both or --skip-existing to leave out "
        "what is the same, or choose another directory with -o"
    )

    def __init__(self, *, hint: str | None = None, **fields: object) -> None:
        """Args:
        hint: as of any error.
        fields: path: the first of them; others: empty, or " and 4 more".
        """
        super().__init__(hint=hint, **fields | {"exist": "exist" if fields.get("others") else "exists"})


class UnsafeName(TransferRefused):
    """The name {name} is not safe to create: {reason}."""

    code = "unsafe_name"
    hint = "nothing was saved; flyx sends no such names, so ask who sent this what it is"


class NoSpace(TransferRefused):
    """Not enough space in {directory}: {shortage}."""

    code = "no_space"
    for_peer = "there is not enough space"
    hint = "free some space, or choose another directory with -o"


class FilesFailed(FlyxError):
    """{failed} of {total} files could not be delivered; the first: {path} ({reason})."""

    code = "files_failed"
    hint = "the other files are complete; the missing ones have to be sent again"


class NothingToSend(FlyxError):
    """What was to be sent is gone: {reason}"""

    code = "nothing_to_send"
    for_peer = "what was to be sent is gone"


class StreamBegun(FlyxError):
    """The stream has begun without this receiver."""

    code = "stream_begun"
    hint = "the sender's --receivers says how many the stream waits for"


class StorageError(FlyxError):
    """Cannot {action} {path}: {reason}"""

    code = "storage_error"
    for_peer = "it could not read or write where it wanted to"


class CorruptData(FlyxError):
    """{path} arrived damaged: its SHA-256 is not the sender's."""

    code = "corrupt_data"
    hint = "nothing damaged was kept; receive into the same directory again to go on from there"


class SystemFailure(FlyxError):
    """This computer cannot go on: {reason}"""

    code = "system_failure"
    for_peer = "its computer cannot go on"


_OUT_OF_DESCRIPTORS = frozenset({errno.EMFILE, errno.ENFILE})


def as_flyx_error(error: BaseException) -> FlyxError:
    """Return what any exception is for a person: what failed around us, or a mistake of flyx.

    Args:
        error: a FlyxError is returned as it is; for any other, the result has it as its cause.
    """
    if isinstance(error, FlyxError):
        return error
    known = _of_surroundings(error) or LocalProtocolError(reason=f"{type(error).__name__}: {error}")
    known.__cause__ = error
    return known


def _of_surroundings(error: BaseException) -> FlyxError | None:
    """Return what has failed around us; None if nothing has, as far as can be seen."""
    match error:
        case OSError(errno=number) if number in _OUT_OF_DESCRIPTORS:
            hint = "raise the limit of open files (`ulimit -n`)"
            return SystemFailure(reason=str(error.strerror), hint=hint)
        case OSError():
            reason = error.strerror or str(error) or type(error).__name__
            at = f" ({error.filename})" if error.filename is not None else ""
            return SystemFailure(reason=f"{reason}{at}")
        case MemoryError():
            return SystemFailure(reason="it is out of memory")
        case RuntimeError() if "start new thread" in str(error):
            hint = "raise the limit of processes (`ulimit -u`), or of the container"
            return SystemFailure(reason="it lets us start no more threads", hint=hint)
        case RuntimeError() if "home directory" in str(error):
            return SystemFailure(reason="it does not say where your home is", hint="set the variable HOME")
        case ImportError():
            hint = "install flyx anew"
            return SystemFailure(reason=f"a part of flyx is missing or damaged: {error}", hint=hint)
        case UnicodeError():
            hint = "set LC_ALL=C.UTF-8, or another encoding that has all characters"
            return SystemFailure(reason=f"its encoding has no such text: {error}", hint=hint)
        case _:
            return None
