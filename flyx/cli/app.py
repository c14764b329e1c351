"""The `flyx` program: its commands, and the one place where errors become words and exit statuses.

Nothing heavy is imported here or at the top of a command's module: `flyx --help` answers at once.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

import flyx
from flyx.cli import output
from flyx.cli.config import load_config
from flyx.cli.demo import demo
from flyx.cli.doctor import doctor
from flyx.cli.receive import receive
from flyx.cli.send import send
from flyx.cli.serve import serve
from flyx.errors import EXIT_CTRL_C, FlyxError, InputError, as_flyx_error

if TYPE_CHECKING:
    from typer._click import Context

# Set by --debug: errors then come with their traceback.
_debug = False


class _FlyxGroup(TyperGroup):
    """Runs a command and turns whatever goes wrong into `error: …`, `hint: …` and an exit status."""

    def invoke(self, ctx: Context) -> Any:
        try:
            ctx.default_map = self._defaults()
            return super().invoke(ctx)
        except FlyxError as error:
            if _debug:
                output.report_traceback(error)
            output.report_error(error)
            raise typer.Exit(error.exit_status) from None
        except KeyboardInterrupt:
            output.report_line("interrupted")
            raise typer.Exit(EXIT_CTRL_C) from None
        except BrokenPipeError:
            # Whoever read our output has left, as it may. Python's own flush at exit would complain of it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except Exception as error:
            if isinstance(error, typer.Exit) or type(error).__module__.startswith("typer"):
                raise
            if _debug:
                output.report_traceback(error)
            failure = as_flyx_error(error)
            output.report_error(failure)
            raise typer.Exit(failure.exit_status) from None

    def _defaults(self) -> dict[str, dict[str, Any]]:
        """What the configuration file sets, by parameter: --json is as_json.

        Raises:
            InputError: it sets what does not exist: a mistake in a name must not pass for a setting.
        """
        defaults = {}
        for name, table in load_config().items():
            if name not in self.commands:
                raise InputError(reason=f"the configuration file has a table for {name}, which is no command")
            parameters = {
                option.removeprefix("--"): parameter.name
                for parameter in self.commands[name].params
                for option in parameter.opts
                if option.startswith("--")
            }
            if unknown := sorted(set(table) - set(parameters)):
                hint = f"the options of {name} are {', '.join(sorted(parameters))}"
                reason = f"the configuration file sets {unknown[0]}, which is no option of {name}"
                raise InputError(reason=reason, hint=hint)
            defaults[name] = {str(parameters[key]): value for key, value in table.items()}
        return defaults


app = typer.Typer(
    name="flyx",
    cls=_FlyxGroup,
    help="Move files straight from one computer to others over WebRTC, with a short code",
    no_args_is_help=True,
    # Locals hold keys and codes, and tracebacks are for --debug, as Python writes them.
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(send)
app.command()(receive)
app.command()(serve)
app.command()(demo)
app.command()(doctor)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"flyx {flyx.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="FLYX_DEBUG", help="Log what happens, and show tracebacks")
    ] = False,
) -> None:
    global _debug
    _debug = debug
    if debug:
        output.log_to_stderr()
    else:
        output.silence_logs()
