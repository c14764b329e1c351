"""The transfer protocol as sans-I/O state machines: manifest, names, messages, sender, receiver.

Nothing here knows about sockets, disks, clocks or terminals. client/ joins these machines to rtc/ (the wire)
and storage/ (the disk).
"""
