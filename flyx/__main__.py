"""The program's entry: `flyx`, and `python -m flyx`.

Imports nothing at the top, so that Ctrl-C while the program loads ends it as quietly as later.
"""


def main() -> None:
    """The console script."""
    try:
        _open_standard_streams()
        _take_names_as_utf8()
        import gc
        import os

        # Little of what a program loads is garbage, and to look for it is a tenth of the time to start.
        # What runs for long has the collector back: tune_gc().
        gc.disable()
        # Where pydantic is loaded, for REST and for options that need it, plugins would see what is given,
        # and to look for some takes as long as for all.
        os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
        from flyx.cli.app import app

        app()
    except KeyboardInterrupt:
        # As EXIT_CTRL_C; flyx.errors may not have been loaded yet.
        raise SystemExit(130) from None
    finally:
        import signal

        # While Python itself ends, Ctrl-C would show a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def _open_standard_streams() -> None:
    """Open what we were started without (`flyx … >&-`), as if it had been sent to /dev/null.

    Else the next file, socket or pipe that is opened gets that descriptor: what belongs on the screen would
    be written into it, and libuv, which never closes these three, would abort.
    """
    import os
    import sys

    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest that is free, which is this one.
            os.open(os.devnull, os.O_RDWR)
            os.set_inheritable(descriptor, True)
        if getattr(sys, name) is None:
            mode = "w" if descriptor else "r"
            file = open(descriptor, mode, encoding="utf-8", errors="replace", closefd=False)
            setattr(sys, name, file)


def _take_names_as_utf8() -> None:
    """Start again if names of files are taken for text of an old locale (`LANG=xx_YY.ISO-8859-1`).

    They are bytes, and UTF-8 everywhere: in another encoding not every name could be made that comes from
    elsewhere. What is shown keeps the encoding of the locale, with escapes for what it lacks.
    """
    import os
    import sys

    encoding = sys.getfilesystemencoding()
    if encoding == "utf-8" or "PYTHONUTF8" in os.environ:
        return
    os.environ["PYTHONUTF8"] = "1"
    os.environ.setdefault("PYTHONIOENCODING", f"{encoding}:backslashreplace")
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - what we were started by


if __name__ == "__main__":
    main()
