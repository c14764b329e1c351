"""SCTP (RFC 9260) as a sans-I/O association, for data channels over DTLS."""
