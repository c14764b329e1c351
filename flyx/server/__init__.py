"""The signaling server: rooms over WebSockets, and a small REST interface beside them."""
