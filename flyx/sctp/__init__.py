"""SCTP (RFC 9260) as a sans-I/O association, for data channels over DTLS."""


def is_compiled() -> bool:
    """Whether this package runs as machine code (.build/compile.py) and not as what is written."""
    from flyx.sctp import serial

    return not serial.__file__.endswith(".py")
