"""What a program gets from `import flyx`: send(), receive() and Server.

An edge beside flyx.cli: it makes the options of flyx.client and flyx.server from parameters. It leaves the
process as it is: no signal handlers, no logging, no standard streams, no variables or configuration files of
flyx, no settings of the garbage collector. flyx/docs/library.md is the promise.
"""
