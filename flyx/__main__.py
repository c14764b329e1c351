"""The program's entry: `flyx`, and `python -m flyx`.

Imports nothing at the top, so that Ctrl-C while the program loads ends it as quietly as later.
"""


def main() -> None:
    """The console script."""
    try:
        from flyx.cli.app import app

        app()
    except KeyboardInterrupt:
        # As EXIT_CTRL_C; flyx.errors may not have been loaded yet.
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
