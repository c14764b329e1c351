"""From sockets to the application and back: uvicorn, TLS, WebSocket frames, connections, worker processes."""
