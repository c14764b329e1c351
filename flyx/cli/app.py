"""The `flyx` program: its commands, and the one place where errors become words and exit statuses.

Nothing heavy is imported here or at the top of a command's module, and of these only the one that runs:
`flyx --help` answers at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperGroup

import flyx
from flyx.cli import completion, output
from flyx.cli.commands import SUMMARIES, Commands
from flyx.cli.config import defaults_of, options_of
from flyx.cli.environment import tidy
from flyx.cli.parameters import adopted
from flyx.cli.settings import usage_error
from flyx.errors import EXIT_CTRL_C, FlyxError, StorageError, as_flyx_error

if TYPE_CHECKING:
    from typer._click import Command, Context, HelpFormatter, Parameter

Result = TypeVar("Result")
_ALIASES = {"recv": "receive", "rx": "receive"}
"""What people take from other programs, and from habit."""

# Set by --debug: errors then come with their traceback.
_debug = False


class _FlyxGroup(TyperGroup):
    """Runs a command and turns whatever goes wrong into `error: …`, `hint: …` and an exit status."""

    # Those of Typer would all be built for each run.
    commands: Mapping[str, Command]  # type: ignore[assignment]  # none is added

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = Commands()

    def get_params(self, ctx: Context) -> list[Parameter]:
        return adopted(super().get_params(ctx))

    def list_commands(self, ctx: Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: Context, formatter: HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(SUMMARIES.items()))

    def main(self, *args: Any, **options: Any) -> Any:
        if completion.VARIABLE in os.environ:
            completion.register()
        try:
            return super().main(*args, **options)
        except OSError as error:
            # What --help or --version say: no command has begun.
            output.abandon_output()
            reason = error.strerror or str(error)
            raise SystemExit(
                _ended(StorageError(action="write to", path="standard output", reason=reason)).exit_code
            ) from None

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        if args in (["--install-completion"], ["--show-completion"]) and not ctx.resilient_parsing:
            args = [*args, _told(completion.running_shell)]
        try:
            return super().parse_args(ctx, args)
        except typer.TyperException as error:
            if ctx.resilient_parsing or _is_help(error):
                raise
            raise _ended(usage_error(error, ctx)) from None

    def invoke(self, ctx: Context) -> Any:
        try:
            tidy()
            return super().invoke(ctx)
        except FlyxError as error:
            raise _ended(error) from None
        except KeyboardInterrupt:
            output.report_interrupt()
            raise typer.Exit(EXIT_CTRL_C) from None
        except BrokenPipeError:
            # The program that read our output has ended, as `head` does.
            output.abandon_output()
            raise typer.Exit(1) from None
        except typer.TyperException as error:
            if _is_help(error):
                raise
            raise _ended(usage_error(error, ctx)) from None
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            raise _ended(as_flyx_error(error), error) from None

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Command | None, list[str]]:
        name, command, rest = super().resolve_command(ctx, [_ALIASES.get(args[0], args[0]), *args[1:]])
        # A command without options in the file, such as `flyx config`, must work with one that has mistakes.
        if command is not None and options_of(command) and not ctx.resilient_parsing:
            ctx.default_map = defaults_of(self.commands)
        return name, command, rest


def _ended(failure: FlyxError, error: BaseException | None = None) -> typer.Exit:
    """Report why the program ends, and return what ends it; error is what failed, if it is not the same."""
    if _debug:
        output.report_traceback(error or failure)
    if failure.hint is None and _is_nowhere():
        failure.hint = "the directory that you are in has been removed; change to another one"
    output.report_error(failure)
    return typer.Exit(failure.exit_status)


def _is_nowhere() -> bool:
    """Tell whether the current directory has been removed: no relative path leads anywhere."""
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _is_help(error: typer.TyperException) -> bool:
    """Tell whether this is no error, but what a group of commands says of itself if none is named."""
    return error.message.startswith("Usage: ")


def _told(act: Callable[[], Result]) -> Result:
    """Do something before there is a command, whose errors become words and exit statuses as well."""
    try:
        return act()
    except FlyxError as error:
        raise _ended(error) from None


app = typer.Typer(
    name="flyx",
    cls=_FlyxGroup,
    help="Move files straight from one computer to others over WebRTC, with a short code",
    no_args_is_help=True,
    # With options of our own, which obey their argument.
    add_completion=False,
    # Locals hold keys and codes, and tracebacks are for --debug, as Python writes them.
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(context: typer.Context, value: bool) -> None:
    if value and not context.resilient_parsing:
        from flyx.sctp import is_compiled

        typer.echo(f"flyx {flyx.__version__} ({'compiled' if is_compiled() else 'pure Python'})")
        raise typer.Exit


def _install_completion(context: typer.Context, shell: completion.Shell | None) -> None:
    if shell is not None and not context.resilient_parsing:
        output.write_data(str(_told(lambda: completion.install(shell))))
        output.report_line(f"From its next start on, {shell.value} completes what you type after flyx")
        raise typer.Exit


def _show_completion(context: typer.Context, shell: completion.Shell | None) -> None:
    if shell is not None and not context.resilient_parsing:
        output.write_data(completion.script(shell))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="FLYX_DEBUG", help="Log what happens, and show tracebacks")
    ] = False,
    install_completion: Annotated[
        completion.Shell | None,
        typer.Option(
            "--install-completion",
            callback=_install_completion,
            is_eager=True,
            expose_value=False,
            help="Teach a shell, this one if none is named, to complete commands and options",
        ),
    ] = None,
    show_completion: Annotated[
        completion.Shell | None,
        typer.Option(
            "--show-completion",
            callback=_show_completion,
            is_eager=True,
            expose_value=False,
            help="Print what --install-completion would have the shell run",
        ),
    ] = None,
) -> None:
    global _debug
    _debug = debug
    if debug:
        output.log_to_stderr()
    else:
        output.silence_logs()
