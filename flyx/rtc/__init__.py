"""WebRTC: peer connections and their data channels, on aiortc."""

import flyx.rtc.seam  # noqa: F401  # before any module here imports aiortc
