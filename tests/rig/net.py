"""Two network namespaces joined by a veth pair: the element's, and the outside world's."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from . import sh

ELEMENT = "192.0.2.2"  # RFC 5737
OUTSIDE = "192.0.2.1"
ELEMENT6 = "2001:db8::2"  # RFC 3849
OUTSIDE6 = "2001:db8::1"
DEVICE = "eth0"  # name of both ends


@dataclass(frozen=True)
class Network:
    """Names for ip-netns(8) and addresses; `outside` is where probes run."""

    element: str
    outside: str
    address: str = ELEMENT
    address6: str = ELEMENT6


@contextmanager
def network(name: str) -> Iterator[Network]:
    """Network namespaces NAME and NAME-out, joined; both are gone afterwards."""
    here = Network(element=name, outside=f"{name}-out")
    made: list[str] = []
    try:
        for namespace in (here.element, here.outside):
            sh.run(["ip", "netns", "add", namespace])
            made.append(namespace)
        ends = [DEVICE, "type", "veth", "peer", "name", DEVICE, "netns", here.outside]
        sh.run(["ip", "-n", here.element, "link", "add", *ends])
        _address(here.element, ELEMENT, ELEMENT6)
        _address(here.outside, OUTSIDE, OUTSIDE6)
        yield here
    finally:
        for namespace in made:
            sh.run(["ip", "netns", "delete", namespace])


def _address(namespace: str, v4: str, v6: str) -> None:
    ip = ["ip", "-n", namespace]
    sh.run([*ip, "link", "set", "lo", "up"])
    sh.run([*ip, "link", "set", DEVICE, "up"])
    sh.run([*ip, "address", "add", f"{v4}/24", "dev", DEVICE])
    sh.run([*ip, "address", "add", f"{v6}/64", "dev", DEVICE, "nodad"])
