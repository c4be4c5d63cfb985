"""org.issu1 on a real bus, with real polkit and a real user: busctl alone, nothing of ours asks."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.rig import sh, traces
from tests.rig.machine import Machine

from .element import (
    GATE,
    Element,
    active,
    assert_as_before,
    element,
    gate_first_boot,
    let_go,
    wait_blocked,
)

OPS = 1000  # user id of an operator who is not root
MANAGER = ("org.issu1", "/org/issu1", "org.issu1.Manager")
RULE = """\
polkit.addRule(function(action, subject) {
    if (action.id == "org.issu1.start" && subject.user == "ops") return polkit.Result.YES;
});
"""
RULES = "etc/polkit-1/rules.d/50-ops.rules"
ERROR = "org.issu1.Error."
IDLE_SEC = 5  # in place of what the service has
SERVICE = "usr/lib/python3/dist-packages/issu_systemd/service.py"
BROKER = ("dbus-broker",)


def with_ops(root: Path) -> None:
    """An operator who is not root, whom a rule lets start upgrades, if it is put into force."""
    with (root / "etc/passwd").open("a") as passwd:
        passwd.write(f"ops:x:{OPS}:{OPS}::/:/bin/sh\n")
    with (root / "etc/group").open("a") as group:
        group.write(f"ops:x:{OPS}:\n")
    soon_idle(root)


def soon_idle(root: Path) -> None:
    """Let the service end soon when nobody asks any more."""
    place, line = root / SERVICE, "\nIDLE_SEC = 30.0\n"
    text = place.read_text()
    assert text.count(line) == 1
    place.write_text(text.replace(line, f"\nIDLE_SEC = {IDLE_SEC}.0\n"))


def ask(machine: Machine, *words: str, uid: int = 0, of: tuple[str, ...] = MANAGER) -> Any:
    """What a method returns, by busctl; raises CommandError with what it said."""
    drop = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"] if uid else []
    argv = [*drop, "busctl", "--system", "--json=short", "--expect-reply=yes", "call", *of, *words]
    said = machine.run(argv).stdout
    return json.loads(said)["data"] if said.strip() else None


def read(machine: Machine, path: str, name: str, uid: int = 0) -> Any:
    """A property of the manager, or of a job."""
    interface = MANAGER[2] if path == MANAGER[1] else "org.issu1.Job"
    of = ("org.issu1", path, "org.freedesktop.DBus.Properties")
    return ask(machine, "Get", "ss", interface, name, of=of, uid=uid)[0]["data"]


def is_refused(machine: Machine, error: str, *words: str, uid: int = 0, **more: Any) -> bool:
    """Whether a call is answered by this error; busctl prints its words, the bus its name."""
    with pytest.raises(sh.CommandError) as caught:
        ask(machine, *words, uid=uid, **more)
    return error in str(caught.value)


def result(e: Element, path: str, uid: int = 0) -> str:
    """Ask again and again until the job has a result, through the change of roots."""

    def ended() -> str | None:
        try:
            return str(read(e.machine, path, "Result", uid)) or None
        except sh.CommandError:  # the bus, or the whole root, is away
            return None

    return e.machine.wait_for(ended, 120, f"{path} ends")


def test_busctl_alone_and_a_user_who_may_start(tmp_path: Path) -> None:
    with element(
        tmp_path, "bookworm", "trixie", packages=("polkitd",), in_source=with_ops,
        in_target=with_ops,
    ) as e:  # fmt: skip
        m = e.machine
        assert ask(m, "Check", "sa{sv}", e.target, "0", uid=OPS)[0] is True
        eligible, findings = ask(m, "Check", "sa{sv}", e.source, "0", uid=OPS)
        assert eligible is False
        assert "running-root" in [finding["id"]["data"] for finding in findings]
        assert read(m, "/org/issu1", "InProgress", OPS) is False
        # All else is refused to an ordinary user.
        assert ask(m, "CanStart", uid=OPS) in (["no"], ["challenge"])
        for words in (
            ("Start", "sa{sv}", e.target, "0"), ("Accept",), ("Rollback",),
            ("Inhibit", "ss", "me", "because"),
        ):  # fmt: skip
            assert is_refused(m, "needs the right to org.issu1.", *words, uid=OPS), words
        assert m.path("/run/issu/record.json").exists() is False
        # A rule grants what it says, and no more.
        (m.path("/etc/polkit-1/rules.d") / "50-ops.rules").write_text(RULE)
        m.wait_for(lambda: ask(m, "CanStart", uid=OPS) == ["yes"], 20, "polkit reads its rules")
        forced = ("Start", "sa{sv}", e.target, "1", "force", "as", "1", "netns")
        assert is_refused(m, "needs the right to org.issu1.start-forced", *forced, uid=OPS)
        assert is_refused(m, "needs the right to org.issu1.rollback", "Rollback", uid=OPS)

        boot_id = m.boot_id()
        id, path = ask(m, "Start", "sa{sv}", e.target, "0", uid=OPS)
        assert path == f"/org/issu1/job/{id}"
        assert result(e, path, OPS) == "accepted"
        assert m.path("/etc/issu-root").read_text() == "trixie\n"
        assert m.boot_id() == boot_id
        assert read(m, path, "Uid") == OPS
        assert read(m, "/org/issu1", "PreviousRoot") == e.source
        report = json.loads(ask(m, "GetReport", "s", id, uid=OPS)[0])
        assert report == e.report(id) and report["result"] == "accepted"
        newest = ask(m, "ListHistory", "u", "1", uid=OPS)[0][0]
        assert newest["id"]["data"] == id and newest["outage_usec"]["data"] > 0
        # Nothing of ours stays when nobody asks any more.
        m.wait_for(lambda: not ours(m), 10 * IDLE_SEC, "no process of ours is left")


def ours(machine: Machine) -> list[str]:
    """The processes that run code of this package."""
    found = machine.run(["pgrep", "--full", "issu_systemd"], check=False).stdout
    return found.split()


@pytest.fixture(scope="module")
def e() -> Iterator[Element]:
    """A machine whose upgrades wait in staging, until somebody lets them go."""
    with (
        traces.workspace() as work,
        element(work, "bookworm", "trixie", in_target=gate_first_boot) as made,
    ):
        yield made


def started(e: Element) -> tuple[str, str]:
    """Start an upgrade; it waits in staging."""
    id, path = ask(e.machine, "Start", "sa{sv}", e.target, "0")
    wait_blocked(e.machine, GATE)
    return id, path


def test_cancel_in_staging_leaves_nothing_behind(e: Element) -> None:
    ask(e.machine, "ListJobs")  # the service listens before the state is taken
    before, units = e.state(), active(e.machine)
    id, path = started(e)
    assert read(e.machine, path, "Phase") == "stage"
    assert read(e.machine, path, "AllowCancel") is True
    assert read(e.machine, "/org/issu1", "CurrentJob") == path
    assert ask(e.machine, "ListJobs") == [[[id, path, "stage"]]]
    assert is_refused(e.machine, "another upgrade runs", "Start", "sa{sv}", e.target, "0")  # busy
    ask(e.machine, "Cancel", of=("org.issu1", path, "org.issu1.Job"))
    assert result(e, path) == "failed"
    assert read(e.machine, path, "Error") == "stopped on request in phase stage"
    e.machine.wait_running(60)
    assert_as_before(e, before, units)
    gone = is_refused(
        e.machine, "has ended", "Cancel", of=("org.issu1", path, "org.issu1.Job")
    )
    assert gone


def test_an_inhibitor_blocks_both_doors_and_ends_with_its_holder(e: Element) -> None:
    m = e.machine
    hold = ["issu", "inhibit", "--who=backup", "--why=it runs", "sleep", "infinity"]
    holder = m.popen(hold)
    m.wait_for(lambda: ask(m, "ListInhibitors")[0], 20, "the inhibitor is held")
    [[who, why, uid, _]] = ask(m, "ListInhibitors")[0]
    assert (who, why, uid) == ("backup", "it runs", 0)
    assert is_refused(m, "inhibited by backup (it runs)", "Start", "sa{sv}", e.target, "0")
    ids = set(e.ids())
    status, _ = e.start()
    assert status != 0
    [id] = set(e.ids()) - ids
    assert [f["id"] for f in e.report(id)["findings"] if f["severity"] == "block"] == ["inhibited"]
    m.run(["pkill", "--signal=KILL", "--full", "issu inhibit|sleep infinity"])
    holder.wait(20)
    m.wait_for(lambda: ask(m, "ListInhibitors") == [[]], 20, "it is released")
    assert ask(m, "Check", "sa{sv}", e.target, "0")[0] is True


def test_it_goes_on_without_service_bus_and_client(e: Element) -> None:
    """Last on this machine: the upgrade ends well though all who watched it were killed."""
    m = e.machine
    id, path = started(e)
    service = m.systemctl("show", "--property=MainPID", "--value", "issu-bus.service")
    m.run(["kill", "-9", service])
    assert read(m, path, "Phase") == "stage"  # another process, the same job
    again = m.systemctl("show", "--property=MainPID", "--value", "issu-bus.service")
    assert again != service and again != "0"
    bus = m.systemctl("show", "--property=MainPID", "--value", "dbus.service")
    m.run(["kill", "-9", bus])

    def is_back() -> bool:
        try:
            return bool(read(m, path, "Phase") == "stage")
        except sh.CommandError:
            return False

    m.wait_for(is_back, 30, "the bus is back, and the job on it")
    let_go(m, f"/sysroot{GATE}")
    assert result(e, path) == "accepted"
    assert m.path("/etc/issu-root").read_text() == "trixie\n"
    assert json.loads(ask(m, "GetReport", "s", "")[0])["id"] == id


def test_with_dbus_broker(tmp_path: Path) -> None:
    def use_broker(root: Path) -> None:
        sh.run(["systemctl", f"--root={root}", "--quiet", "enable", "dbus-broker.service"])

    with element(
        tmp_path, "trixie", "trixie", packages=BROKER, in_source=use_broker, in_target=use_broker
    ) as e:
        m = e.machine
        assert m.systemctl("is-active", "dbus-broker.service") == "active"
        assert ask(m, "Check", "sa{sv}", e.target, "0")[0] is True
        words = ("Start", "sa{sv}", e.target, "1", "strategy", "s", "live")
        _, path = ask(m, *words)
        assert result(e, path) == "accepted"
        assert m.systemctl("is-active", "dbus-broker.service") == "active"
        assert e.report()["strategy"] == "live"
