"""Rooms that many nodes share through one Redis. store.py has how it works, backend.py what it rests on."""
