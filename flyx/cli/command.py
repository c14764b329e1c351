"""What each command does with its options before and after they are used: say where a bad value came from."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from typer import BadParameter
from typer.core import TyperCommand

from flyx.cli.settings import bad_value, place_of, settle
from flyx.errors import InputError, ServerUnreachable

if TYPE_CHECKING:
    from typer._click import Context


class FlyxCommand(TyperCommand):
    """A command that tells a bad value with where it came from: a variable, or the configuration file."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Read the options.

        Raises:
            InputError: One that stands elsewhere than on the command line cannot be used.
        """
        try:
            rest = super().parse_args(ctx, args)
        except BadParameter as error:
            if (told := bad_value(error)) is None:
                raise
            raise told from error
        for parameter in self.params:
            settle(ctx, parameter)
        return rest

    def invoke(self, ctx: Context) -> Any:
        """Run the command.

        Raises:
            InputError: An option cannot be used; with where it was set.
        """
        try:
            return super().invoke(ctx)
        except InputError as error:
            said = f"{error.fields.get('reason')} {error.hint or ''}"
            places = ", ".join(f"{option} is set by {place}" for option, place in self._named_in(ctx, said))
            if places and "reason" in error.fields:
                error.fields["reason"] = f"{error.fields['reason']} ({places})"
            raise
        except ServerUnreachable as error:
            place = place_of(ctx, "server")
            # A code may have named another one.
            if place is not None and error.fields["url"] == _url_of(ctx.params["server"]):
                error.hint = f"{place} names this server" + (f"; {error.hint}" if error.hint else "")
            raise

    def _named_in(self, ctx: Context, text: str) -> Iterator[tuple[str, str]]:
        """Yield the options that a text names, and where they are set, if not on the command line."""
        for parameter in self.params:
            place = place_of(ctx, str(parameter.name))
            for option in parameter.opts:
                pattern = rf"(?<![\w-]){re.escape(option)}(?![\w-])"
                if place is not None and option.startswith("--") and re.search(pattern, text):
                    yield option, place


def _url_of(server: str) -> str:
    from flyx.client.websocket import websocket_url

    return websocket_url(server)
