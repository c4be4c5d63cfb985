"""Kill -9 of strategy live wherever it stands: the machine is of one root or the other, whole."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from issu_systemd import oldroot
from tests.rig import traces

from .element import Element, element
from .test_live_failure import DEATHS, change_frail, in_source, in_target, services
from .whole import check_accepted, check_of, suite

PACKAGE = "usr/lib/python3/dist-packages/issu_systemd"
PAIRS = [("bookworm", "trixie"), ("trixie", "bookworm")]
# Where the process dies: after which call of which module.
POINTS = {
    "resolve": ("devices.py", "resolve"),
    "stop": ("live.py", "stop"),
    "prepare": ("pivot.py", "prepare"),
    "pivot": ("pivot.py", "swap"),
    "back": ("live.py", "turn_back"),
    "restart": ("restart.py", "next_end"),
    "drop": ("pivot.py", "drop"),
    "end": ("release.py", "undo_files"),
}
MORTAL = """

def mortal(point, call):
    import os, signal
    def dies(*args, **named):
        done = call(*args, **named)
        try:
            os.unlink(f"/run/die-after-{point}")
        except OSError:
            return done
        os.kill(os.getpid(), signal.SIGKILL)
    return dies
"""


def make_mortal(root: Path) -> None:
    """Let the installed package die, once, after the call that a file in /run names."""
    for point, (module, call) in POINTS.items():
        place = root / PACKAGE / module
        text = place.read_text()
        assert f"\ndef {call}(" in text
        place.write_text(f'{text}{MORTAL}\n{call} = mortal("{point}", {call})\n')


def mortal_source(root: Path) -> None:
    in_source(root)
    make_mortal(root)


def mortal_target(root: Path) -> None:
    in_target(root)
    make_mortal(root)


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def e(request: pytest.FixtureRequest) -> Iterator[Element]:
    """One machine for every death that ends on the old root; the last test leaves it."""
    source, target = request.param
    with traces.workspace() as work, element(
        work, source, target, in_source=mortal_source, in_target=mortal_target
    ) as made:  # fmt: skip
        yield made


@pytest.fixture(autouse=True)
def keep_logs(e: Element, request: pytest.FixtureRequest) -> Iterator[None]:
    """A machine of several tests keeps its logs when one of them fails."""
    failed = request.session.testsfailed
    yield
    e.machine.failed |= request.session.testsfailed > failed


def upgrade_with_a_death(e: Element, point: str, target: str | None = None) -> dict[str, Any]:
    """Upgrade, and let the process that does it die after a call; the report."""
    known, mark = set(e.ids()), e.machine.path(f"/run/die-after-{point}")
    mark.touch()
    e.start(target)
    report = e.wait_end(known)
    assert not mark.exists(), "nothing died"
    return report


@pytest.mark.parametrize(
    ("point", "phase"), [("resolve", "preflight"), ("stop", "release"), ("prepare", "release")]
)
def test_before_the_pivot(e: Element, point: str, phase: str) -> None:
    old, before = suite(e), services(e)
    report = upgrade_with_a_death(e, point)
    assert report["result"] == "failed"
    assert report["error"] == f"the agent died in phase {phase} (signal KILL)"
    e.machine.wait_for(
        lambda: "issu@" in e.machine.systemctl("--failed"), 30, "the agent's own unit has failed"
    )
    e.machine.systemctl("reset-failed", "issu@*")
    check_of(e, old, e.target)
    assert services(e) == before


def test_between_pivot_and_re_execution(e: Element) -> None:
    """PID 1 follows the root, and the upgrade goes on: there and back."""
    old = suite(e)
    (new,) = {*PAIRS[0]} - {old}
    for target, release in ((e.target, new), (e.source, old)):
        check_accepted(e, upgrade_with_a_death(e, "pivot", target), release)


@pytest.mark.parametrize("point", ["back", "end"])
def test_on_the_way_back(e: Element, point: str) -> None:
    """The process that pivots back dies then, or the next one does while it ends the upgrade."""
    old, before = suite(e), services(e)
    change_frail(e, DEATHS["fails"][0])
    report = upgrade_with_a_death(e, point)
    change_frail(e, "")
    assert report["result"] == "rolled-back"
    assert "frail.service did not come back" in report["error"]
    check_of(e, old, e.target)
    assert services(e) == before


def test_between_two_restarts(e: Element) -> None:
    """It goes on where it stood: the machine is of the new root."""
    (new,) = {*PAIRS[0]} - {suite(e)}
    report = upgrade_with_a_death(e, "restart")
    check_accepted(e, report, new)
    again = [unit["unit"] for unit in report["units"] if unit["action"] == "restarted"]
    assert {"nginx.service", "frail.service", "dbus.service"} <= {*again}


@pytest.mark.parametrize("point", ["drop", "end"])
def test_when_the_old_root_is_let_go(e: Element, point: str) -> None:
    """To and fro: whoever comes next ends the upgrade."""
    (other,) = {*PAIRS[0]} - {suite(e)}
    to = e.target if oldroot.is_free(e.target) else e.source
    check_accepted(e, upgrade_with_a_death(e, point, to), other)
