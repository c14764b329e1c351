"""WebRTC: peer connections and their data channels, on aiortc."""
