"""What each command does with its options before and after they are used: it names what set a wrong one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand

from flyx.cli.output import errors_as_events
from flyx.cli.parameters import adopted
from flyx.cli.settings import place_of, settle, usage_error
from flyx.errors import InputError, ServerUnreachable

if TYPE_CHECKING:
    from typer._click import Context, Parameter


class FlyxCommand(TyperCommand):
    """A command that tells what it cannot use, and which variable or file has set it."""

    def get_params(self, ctx: Context) -> list[Parameter]:
        return adopted(super().get_params(ctx))

    def collect_usage_pieces(self, ctx: Context) -> list[str]:
        """Return what stands in the usage after the command, arguments as PATH and not as {PATH}."""
        return [
            piece.translate({ord("{"): None, ord("}"): None}) for piece in super().collect_usage_pieces(ctx)
        ]

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Read the options.

        Raises:
            InputError: they cannot be used.
        """
        # What is parsed is taken out of args.
        given = list(args)
        try:
            rest = super().parse_args(ctx, args)
        except typer.TyperException as error:
            if ctx.resilient_parsing:
                raise
            if self._is_for_programs(ctx, given):
                errors_as_events()
            raise usage_error(error, ctx) from error
        for parameter in self.params:
            settle(ctx, parameter)
        return rest

    def invoke(self, ctx: Context) -> Any:
        """Run the command.

        Raises:
            InputError: an option cannot be used; with where it was set.
        """
        try:
            return super().invoke(ctx)
        except InputError as error:
            if "reason" in error.fields:
                error.fields["reason"] = self._with_places(ctx, str(error.fields["reason"]), error.hint)
            raise
        except ServerUnreachable as error:
            place = place_of(ctx, "server")
            # A code may have named another one.
            if place is not None and error.fields["url"] == _url_of(ctx.params["server"]):
                error.hint = f"{place} names this server" + (f"; {error.hint}" if error.hint else "")
            raise

    def _is_for_programs(self, ctx: Context, args: list[str]) -> bool:
        """Tell whether --json is set, on the command line or elsewhere: then a program reads the output."""
        parameter = next((each for each in self.params if each.name == "as_json"), None)
        if parameter is None:
            return False
        with suppress(typer.TyperException):
            parameter.handle_parse_result(ctx, {"as_json": True} if "--json" in args else {}, [])
        return bool(ctx.params.get("as_json"))

    def _with_places(self, ctx: Context, reason: str, hint: str | None) -> str:
        """Return why an option cannot be used, with where those that it names are set."""
        places = []
        for option, place in self._named_in(ctx, f"{reason} {hint or ''}"):
            if reason.startswith(f"{option} cannot be used: "):
                reason = reason.replace(option, place, 1)
            else:
                places.append(f"{option} is set by {place.rstrip(',')}")
        return f"{reason} ({', '.join(places)})" if places else reason

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
