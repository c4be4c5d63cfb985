"""What the tester's counts mean: TPL_frames and TPL_time of RFC 7654, a leak of the firewall."""

from typing import Any

from .traffic import FORBIDDEN_PORT

Seen = dict[str, Any]


def allowed(seen: Seen) -> list[Seen]:
    """The flows that must come through."""
    return [flow for flow in seen["flows"] if flow["port"] != FORBIDDEN_PORT]


def sent(seen: Seen) -> int:
    """Frames sent that must come through."""
    return sum(flow["sent"] for flow in allowed(seen))


def lost(seen: Seen) -> int:
    """TPL_frames: how many did not come through."""
    return sum(flow["sent"] - flow["received"] for flow in allowed(seen))


def lost_msec(seen: Seen, rate: float) -> float:
    """TPL_time in milliseconds: the loss over the offered load."""
    return lost(seen) / rate * 1000


def duplicates(seen: Seen) -> int:
    """Frames that came more than once."""
    return sum(flow["duplicates"] for flow in allowed(seen))


def longest_gap(seen: Seen) -> int:
    """The longest time in microseconds in which a flow brought nothing."""
    return max(int(flow["longest_gap"]) for flow in allowed(seen))


def leaked(seen: Seen) -> int:
    """Frames that the firewall should have dropped."""
    flows = [flow for flow in seen["flows"] if flow["port"] == FORBIDDEN_PORT]
    return sum(int(flow["received"]) for flow in flows)
