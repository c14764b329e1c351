"""Admission control: counts of connections and of requests, for all parts of one server."""

from __future__ import annotations

from ipaddress import ip_address

from flyx.server.config import ServerConfig
from flyx.server.limits import ConnectionCounter, ConnectionSlot, Limit, RateLimits, address_key
from flyx.server.logs import Throttle, get_logger
from flyx.server.metrics import Metrics

log = get_logger("flyx.server.admission")

SLOT = "flyx.slot"
"""Key of the connection's ConnectionSlot in the state of its scopes."""

_OTHER_FILES = 64 + 2 * ConnectionCounter.SLACK
"""Files that a server needs besides those of its connections, and of those it turns away."""


def affordable_connections(wanted: int) -> int:
    """Return wanted, or less if this process may not have so many files open; 0 stands for no limit in both.

    A server that runs out of files cannot even say so to whom it turns away.
    """
    try:
        import resource
    except ImportError:
        return wanted
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return wanted
    most = max(1, soft - _OTHER_FILES)
    return min(wanted or most, most)


class Admission:
    """Tells, for all parts of one server, what clients have used up.

    Attributes:
        connections: all that are open.
        rates: how often addresses have asked for what.
    """

    def __init__(self, config: ServerConfig, metrics: Metrics) -> None:
        self.connections = ConnectionCounter(config.limits)
        self.rates = RateLimits(config.limits)
        self._proxies = config.trusted_proxies
        self._metrics = metrics
        self._throttle = Throttle()

    def admit(self, host: str) -> ConnectionSlot | None:
        """Count a connection from host; None: cut it off."""
        address = None if self.is_proxy(host) else address_key(host)
        slot = self.connections.admit(address)
        if slot is None:
            self.rejected(Limit.CONNECTIONS if address is None else Limit.CONNECTIONS_PER_ADDRESS)
        return slot

    def is_proxy(self, host: str) -> bool:
        """Whether what host says of its clients is believed."""
        if not self._proxies:
            return False
        try:
            address = ip_address(host.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._proxies)

    def rejected(self, limit: Limit) -> None:
        """Count, and now and then log, that a limit was reached."""
        self._metrics.limit_reached(limit)
        suppressed = self._throttle.count(limit)
        if suppressed is not None:
            log.warning("limit reached", limit=limit.value, suppressed=suppressed)
