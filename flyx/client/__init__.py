"""Sending and receiving: joins signaling, WebRTC, the transfer machines and the disk, and tells of progress.

Nothing here prints: what happens is told as events (client/events.py), which cli/ renders.
"""
