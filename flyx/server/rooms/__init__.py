"""Rooms: where they are kept, and the hub that ties them to the connections of this process."""
