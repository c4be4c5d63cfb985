"""Whether a machine is of one root, all of it, and nothing of an upgrade is left: strategy live."""

from typing import Any

from issu_systemd import oldroot

from .element import Element, besides

ELSEWHERE = """
root=$(stat -c %d /)
for p in /proc/[0-9]*; do
    d=$(stat -Lc %d $p/exe 2>/dev/null) || continue
    [ $d = $root ] || echo ${p#/proc/} $(cat $p/comm)
done
true
"""


def elsewhere(e: Element) -> list[str]:
    """The processes whose program is not on the root that runs."""
    return e.machine.run(["sh", "-c", ELSEWHERE]).stdout.splitlines()


def suite(e: Element) -> str:
    """The release whose root runs."""
    return e.machine.path("/etc/issu-root").read_text().strip()


def invocations(e: Element) -> dict[str, str]:
    """The InvocationID of every unit: a new one with each start."""
    shown = e.machine.systemctl("show", "*", "--property=Id,InvocationID").split("\n\n")
    pairs = (dict(line.split("=", 1) for line in unit.splitlines()) for unit in shown)
    return {pair["Id"]: pair.get("InvocationID", "") for pair in pairs}


def check_kept(report: dict[str, Any], before: dict[str, str], after: dict[str, str]) -> None:
    """What the report calls kept was neither stopped nor started."""
    kept = [unit["unit"] for unit in report["units"] if unit["action"] == "kept"]
    assert kept
    for unit in kept:
        # systemd 257 gives an id to a mount that 252 had found without one.
        assert after.get(unit, "") == before.get(unit) or not before.get(unit), unit


def check_traces(e: Element) -> None:
    """Nothing of an upgrade is left on the machine."""
    assert list(e.machine.path("/run/issu").iterdir()) == []
    assert "50-issu-hold.conf" not in e.machine.run(["ls", "-R", "/run/systemd/system"]).stdout
    assert "/sysroot" not in e.machine.run(["cat", "/proc/1/mountinfo"]).stdout
    assert e.machine.systemctl("list-jobs", "--no-legend") == ""


def check_of(e: Element, release: str, other: str) -> None:
    """The machine is of one release and in good health; the device `other` is free."""
    assert suite(e) == release
    assert e.machine.state() == "running", e.machine.systemctl("--failed")
    assert elsewhere(e) == []
    assert oldroot.is_free(other)
    check_traces(e)


def lacks(e: Element, unit: str) -> bool:
    """Whether the root that runs has no such unit."""
    return e.machine.run(["systemctl", "cat", unit], check=False).returncode != 0


def check_accepted(
    e: Element, report: dict[str, Any], release: str, *, foreseen: tuple[str, ...] = ()
) -> None:
    """The upgrade to `release` has come out well and let go of the old root.

    `foreseen` are the ids of what preflight had to say of the roots of this test, besides the units
    that the new root indeed lacks.
    """
    assert report["result"] == "accepted", report
    assert (report["mechanism"], report["strategy"]) == ("pivot", "live")
    check_of(e, release, report["source"]["device"])
    lost = [f["text"].split()[0] for f in report["findings"] if f["id"] == "unit-lost"]
    told = besides(report, [unit for unit in lost if lacks(e, unit)])
    assert [finding["id"] for finding in told] == [*foreseen, "old-root-free"], told
    assert report["plan"]["differences"] == []
    assert report["continuity"]["differences"] == []
