"""From what probes saw to figures for people. Pure; times in microseconds."""

from collections.abc import Iterable

from .outage import Gap, Observed


def since(service: Observed, begin: int) -> list[Gap]:
    """The outages of a service that lasted beyond `begin`."""
    return [gap for gap in service.outages if gap.end_usec > begin]


def window(seen: Iterable[Observed], begin: int = 0) -> Gap | None:
    """From the first probe of any service that failed until all answered again; None: no outage.

    What was over before `begin` does not count.
    """
    gaps = [gap for service in seen for gap in since(service, begin)]
    if not gaps:
        return None
    return Gap(min(gap.start_usec for gap in gaps), max(gap.end_usec for gap in gaps))


def sample(count: int, most: int) -> list[int]:
    """At most `most` of the numbers 1 to `count`, evenly spread, the first and last among them."""
    if count <= most:
        return list(range(1, count + 1))
    return [1 + round(i * (count - 1) / (most - 1)) for i in range(most)]
