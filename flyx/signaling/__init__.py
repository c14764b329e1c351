"""Signaling without I/O: the message grammar, the rooms, the codes.

The server and the client both import it; neither knows more of the protocol than what stands here.
"""
