"""Rooms that many nodes share through one Redis. store.py says how it works, shared.py what it rests on."""
