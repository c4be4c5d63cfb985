"""Ten live upgrades to and fro under the eyes of clients: nothing piles up, nobody is refused."""

from pathlib import Path

from issu_systemd import oldroot
from tests.rig.probe import Probe
from tests.rig.services import Tcp

from .clients import OFFERED, PLAIN, connection, offer_sockets, talk
from .element import Element, element, write_settings
from .kinds import LIVE
from .test_endurance import UPGRADES, growth, measure
from .whole import check_traces

SLOW_SEC = 5.0  # a connection waits in the socket while its service is restarted


def fit_out(root: Path) -> None:
    write_settings(root, LIVE)
    offer_sockets(root)


def upgrade_under_a_connection(e: Element, target: str, source: str) -> None:
    """One TCP connection lives through the upgrade; it alone pins the old root meanwhile."""
    with talk(e.machine.network, connection(e.machine.network)) as held:
        assert held.say("before") == "before"
        report = e.upgrade(target)
        assert report["result"] == "accepted", report
        assert held.say("after") == "after"
        (pin,) = report["findings"]
        assert pin["id"] == "old-root-pinned", report["findings"]
        assert "of held@" in pin["text"]
        assert not oldroot.is_free(source)
        assert report["plan"]["differences"] == []
        assert report["continuity"]["differences"] == []
    e.machine.wait_for(lambda: oldroot.is_free(source), 10, "the old root is free")
    check_traces(e)


def test_ten_upgrades(tmp_path: Path) -> None:
    with element(tmp_path, in_source=fit_out, in_target=fit_out) as e:
        boot_id, sizes = e.machine.boot_id(), []
        address = e.machine.network.address
        watched = {"offered": Tcp(address, OFFERED), "plain": Tcp(address, PLAIN)}
        with Probe(e.machine.network.outside, watched, timeout=SLOW_SEC) as probe:
            probe.wait_up(10)
            for count in range(UPGRADES):
                ways = (e.target, e.source)
                upgrade_under_a_connection(e, *(ways if count % 2 == 0 else ways[::-1]))
                probe.wait_up(10)
                sizes.append(measure(e, tmp_path))
            seen = probe.stop()
        assert e.machine.state() == "running"
        assert e.machine.boot_id() == boot_id
        assert len(e.ids()) == UPGRADES

        assert growth(sizes[2], sizes[-2]) == {}  # both in the one release
        assert growth(sizes[3], sizes[-1]) == {}  # both in the other

        assert seen["offered"].failures == 0, seen["offered"].last_error
        assert seen["offered"].answers[-1].count > UPGRADES
        # Negative control: a service that holds its socket itself.
        assert seen["plain"].failures >= UPGRADES
        assert "refused" in seen["plain"].last_error.lower()
