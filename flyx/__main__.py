"""The program's entry: `flyx`, and `python -m flyx`.

Imports nothing at the top, so that Ctrl-C while the program loads ends it as quietly as later.
"""


def main() -> None:
    """The console script."""
    try:
        import gc

        # Little of what a program loads is garbage, and to look for it is a tenth of the time to start.
        # What runs for long has the collector back: calm_collector().
        gc.disable()
        from flyx.cli.app import app

        app()
    except KeyboardInterrupt:
        # As EXIT_CTRL_C; flyx.errors may not have been loaded yet.
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
