"""SCTP (RFC 9260) as a sans-I/O association, for data channels over DTLS."""


def is_compiled() -> bool:
    """Whether what handles packets runs as machine code (.build/compile.py)."""
    from flyx.sctp import serial

    return not serial.__file__.endswith(".py")
