"""Which mechanism is chosen, and what PID 1 is asked then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from issu_systemd import mounts, switch
from issu_systemd.errors import IssuError
from issu_systemd.systemd import Manager
from tests.bus.fake import Fake, State

ROOT = Path("/sysroot")


@pytest.mark.parametrize(
    ("offers", "mechanism"),
    [
        (["Reload", "SwitchRoot"], "switch-root"),  # systemd 252
        (["Reload", "SwitchRoot", "SoftReboot"], "soft-reboot"),  # 257 has both
        (["SoftReboot", "SwitchRoot"], "soft-reboot"),
        (["SoftReboot"], "soft-reboot"),
        (["Reload", "Reexecute"], None),
        ([], None),
    ],
)
def test_the_mechanism_is_chosen_by_what_is_offered(
    manager: Manager, pid1: Fake, offers: list[str], mechanism: str | None
) -> None:
    for version in ("252.39-1~deb12u1", "257.13-1~deb13u1"):  # never by the version
        pid1.be(State(version=version, offers=offers))
        assert switch.mechanism_of(manager) == mechanism
        assert {call[0] for call in pid1.calls()} <= {"Introspect"}


def test_every_mechanism_has_its_method() -> None:
    assert set(switch.MECHANISMS) == set(switch.METHODS) == {"soft-reboot", "switch-root"}


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch, pid1: Fake) -> Iterator[list[tuple[str, int]]]:
    """What was synced, and how often PID 1 had been called then; nothing is waited for."""
    found: list[tuple[str, int]] = []

    def sync(place: Path) -> None:
        found.append((str(place), len(pid1.calls("SoftReboot", "SwitchRoot"))))

    monkeypatch.setattr("issu_systemd.mounts.sync", sync)
    monkeypatch.setattr(switch, "DEADLINE_SEC", 0.0)
    handler = signal.getsignal(signal.SIGTERM)
    yield found
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize(
    ("mechanism", "call"),
    [
        ("soft-reboot", ["SoftReboot", "/sysroot"]),
        ("switch-root", ["SwitchRoot", "/sysroot", ""]),  # an empty INIT hands the state over
    ],
)
def test_what_pid_1_is_asked(
    manager: Manager, pid1: Fake, synced: list[tuple[str, int]], mechanism: str, call: list[str]
) -> None:
    with pytest.raises(IssuError, match=f"did not act on {call[0]}"):
        switch.switch(manager, ROOT, mechanism)
    assert pid1.calls()[-1] == call
    assert pid1.calls("SoftReboot", "SwitchRoot") == [call]
    assert [calls for _, calls in synced if calls] == []  # a sync comes before, or not at all


def test_switch_root_syncs_both_roots_first(
    manager: Manager, synced: list[tuple[str, int]]
) -> None:
    """systemd before 254 detaches the old root without."""
    with pytest.raises(IssuError):
        switch.switch(manager, ROOT, "switch-root")
    assert synced == [("/", 0), ("/sysroot", 0)]


@pytest.mark.usefixtures("synced")
@pytest.mark.parametrize("method", ["SoftReboot", "SwitchRoot"])
def test_a_refusal_is_told_at_once(
    manager: Manager, pid1: Fake, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(switch, "DEADLINE_SEC", 1e6)
    text = "Not in initrd, refusing switch-root operation."
    pid1.be(State(errors={method: ["org.freedesktop.DBus.Error.NotSupported", text]}))
    name = next(name for name, known in switch.METHODS.items() if known == method)
    with pytest.raises(IssuError, match=text):
        switch.switch(manager, ROOT, name)


@pytest.mark.parametrize(
    ("source", "known"), [("/dev/issu-gone", False), ("tmpfs", True)], ids=["gone", "no-device"]
)
def test_a_device_that_cannot_be_read_is_not_left_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, known: bool
) -> None:
    """The file system may look as ever: it is in memory."""
    init = tmp_path / switch.INIT.lstrip("/")
    init.parent.mkdir(parents=True)
    init.touch(mode=0o755)
    line = f"25 1 8:1 / {tmp_path} rw - ext4 {source} rw"
    monkeypatch.setattr(mounts, "mount_at", lambda point: mounts.parse(line)[0])
    dev = tmp_path.stat().st_dev
    if known:
        switch.check_root(tmp_path, dev)
        return
    with pytest.raises(IssuError, match=f"{source} cannot be read any more") as caught:
        switch.check_root(tmp_path, dev)
    assert caught.value.hint


AGENT = """
import pathlib, signal, sys
from issu_systemd import mounts, switch, systemd
mounts.sync = lambda place: None
signal.signal(signal.SIGTERM, lambda *_: print("ignored", flush=True))
with systemd.Manager(sys.argv[1], peer_to_peer=False) as manager:
    manager.call("Reload")
    print("asking", flush=True)
    switch.switch(manager, pathlib.Path("/sysroot"), "soft-reboot")
"""


def test_the_signal_of_pid_1_ends_the_agent(pid1: Fake) -> None:
    """Whatever handler there was: a signal that is not obeyed would keep the old root in use."""
    argv = [sys.executable, "-c", AGENT, pid1.address]
    process = subprocess.Popen(argv, cwd=Path(__file__).parents[2], stdout=subprocess.PIPE)
    with process:
        assert process.stdout
        assert process.stdout.readline() == b"asking\n"
        while not pid1.calls("SoftReboot"):
            os.sched_yield()
            assert process.poll() is None
        process.terminate()
        assert process.stdout.read() == b""
    assert process.returncode == -signal.SIGTERM
