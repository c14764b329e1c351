"""Sending and receiving: joins signaling, WebRTC, the transfer machines and the disk, and reports progress.

Nothing here prints: it emits events (client/events.py), which cli/ renders.
"""
