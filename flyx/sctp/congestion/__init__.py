"""Congestion control behind one interface; chosen by name."""
