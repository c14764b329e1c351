"""`python -m flyx` is the same program as `flyx`."""

from flyx.cli.app import main

main()
