"""The only way to uvicorn, and the names of its implementation that flyx uses.

uvicorn promises its `Config` and how to run a `Server`. It promises nothing of the protocols that it makes
for each connection, nor of the steps of a server; flyx inherits from both. A test makes sure that the pinned
release has each name listed here, with the parameters that flyx expects, and that flyx uses no other.
"""

from __future__ import annotations

from uvicorn import Config, Server
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

__all__ = ["ClientDisconnected", "Config", "H11Protocol", "Server", "WebSocketsSansIOProtocol"]

ATTRIBUTES: dict[type, tuple[str, ...]] = {
    H11Protocol: (
        *("app_state", "config", "conn", "connections", "loop", "server_state", "transport"),
        "ws_protocol_class",
    ),
    WebSocketsSansIOProtocol: (
        # Of the process and the connection.
        *("app", "app_state", "asgi_version", "client", "config", "default_headers", "logger", "loop"),
        *("root_path", "scheme", "server", "tasks", "transport"),
        # Of the handshake; the last three only since it came.
        *("handshake_complete", "handshake_initiated", "request", "response", "scope"),
        # Of what is received, and of the end.
        *("close_sent", "close_timeout", "close_timer", "conn", "curr_msg_data_type", "disconnected"),
        *("frames", "ping_sent_at", "pong_timer", "queue", "read_paused", "writable"),
    ),
    Server: ("config", "lifespan", "server_state", "servers", "should_exit", "started"),
}
"""What an instance has that flyx reads or sets."""

CALLED: dict[type, dict[str, tuple[str, ...]]] = {
    H11Protocol: {},
    WebSocketsSansIOProtocol: {
        "on_task_complete": ("task",),
        "receive": (),
        "send_500_response": (),
        "start_keepalive": (),
        "stop_keepalive": (),
    },
    Server: {"on_tick": ("counter",)},
}
"""Methods that flyx calls and does not override, with their parameters."""

OVERRIDDEN: dict[type, dict[str, tuple[str, ...]]] = {
    H11Protocol: {
        "connection_lost": ("exc",),
        "connection_made": ("transport",),
        "data_received": ("data",),
        "handle_websocket_upgrade": ("event",),
        "on_response_complete": (),
        "timeout_keep_alive_handler": (),
    },
    WebSocketsSansIOProtocol: {
        "connection_lost": ("exc",),
        "connection_made": ("transport",),
        "data_received": ("data",),
        "handle_close": ("event",),
        "handle_connect": ("event",),
        "handle_cont": ("event",),
        "handle_parser_exception": (),
        "handle_ping": (),
        "handle_pong": ("event",),
        "keepalive_timeout": (),
        "run_asgi": (),
        "send": ("message",),
        "send_receive_event_to_app": (),
    },
    Server: {
        "capture_signals": (),
        "main_loop": (),
        "shutdown": ("sockets",),
        "startup": ("sockets",),
    },
}
"""Methods that flyx overrides, with their parameters."""
