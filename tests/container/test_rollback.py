"""Strategy halt and a new root that is not healthy: the machine goes back by itself."""

from pathlib import Path

import pytest

from tests.rig import box, loop, net, sh, traces

from .back import change_target, check_back, history_of, wait_back
from .element import Element, element, write_settings, write_unit
from .kinds import SLEEP
from .test_live_kill import make_mortal
from .whole import suite

PAIRS = [("trixie", "bookworm"), ("bookworm", "bookworm")]
SETTINGS = """
[verify]
units = ["frail.service"]
timeout = "8s"
settle = "1s"
program-timeout = "2s"
"""
SETTLE_SEC = {"dies later": 5}  # where it is to be longer than one second
HERE = "/etc/issu/conf.d/60-here.toml"  # on the old root; the way back goes by it too
FRAIL = "/etc/systemd/system/frail.service"
MORE = "/etc/systemd/system/more.service"
PROGRAM = "/etc/issu/verify.d/50-look"
GOOD = {
    FRAIL: f"[Service]\nExecStart={SLEEP}\n",
    MORE: "[Service]\nType=oneshot\nExecStart=/bin/true\n",
    PROGRAM: '#!/bin/sh\ngrep -q \'"phase": "verify"\' "$1"\n',
}
NO_LIMIT = "[Unit]\nStartLimitIntervalSec=0\n"
# What is wrong in the new root, and what the report says of it.
BAD = {
    "crash-loops": (
        {FRAIL: f"{NO_LIMIT}[Service]\nRestart=always\nExecStart=/bin/false\n"},
        "frail.service ",
    ),
    "another crash-loops": (  # nobody named it, and PID 1 never calls it failed
        {MORE: f"{NO_LIMIT}[Service]\nRestart=always\nExecStart=/bin/false\n"},
        "more.service crashes again and again, and did not before",
    ),
    "dies later": (
        {FRAIL: "[Service]\nExecStart=/bin/sh -c 'sleep 3; exit 3'\n"},
        "frail.service did not stay active for 5 s: it is failed",
    ),
    "never completes": (
        {MORE: f"[Service]\nType=oneshot\nExecStart={SLEEP}\nTimeoutStartSec=infinity\n"},
        "graphical.target is inactive after 8 s",
    ),
    "program fails": (
        {PROGRAM: "#!/bin/sh\necho no neighbour is up\nexit 3\n"},
        f"{PROGRAM} ended with 3: no neighbour is up",
    ),
    "program hangs": (
        {PROGRAM: "#!/bin/sh\necho asking\nsleep infinity &\nsleep infinity\n"},
        f"{PROGRAM} did not end within 2 s: asking",
    ),
    "program prints": (
        {PROGRAM: "#!/bin/sh\nhead -c 100M /dev/zero | tr '\\0' x\necho\necho enough\nexit 1\n"},
        f"{PROGRAM} ended with 1: enough",
    ),
}  # fmt: skip


def in_both(root: Path) -> None:
    write_settings(root, SETTINGS)
    write_unit(root, "frail.service", GOOD[FRAIL])
    write_unit(root, "more.service", GOOD[MORE])


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_root_that_is_not_healthy(source: str, target: str) -> None:
    with traces.workspace() as work, element(
        work, source, target, in_source=in_both, in_target=in_both
    ) as e:  # fmt: skip
        boot_id = e.machine.boot_id()
        for name, (files, reason) in BAD.items():
            change_target(e, GOOD | files)
            settle = f'[verify]\nsettle = "{SETTLE_SEC.get(name, 1)}s"\n'
            e.machine.path(HERE).write_text(settle)
            known = set(e.ids())
            assert e.start()[0] == 0
            check_back(e, wait_back(e, known), source, reason)
            assert e.machine.boot_id() == boot_id
        change_target(e, GOOD)
        assert e.upgrade()["result"] == "accepted"  # control
        assert suite(e) == target


def test_every_trouble_is_told(tmp_path: Path) -> None:
    with element(tmp_path, in_source=in_both, in_target=in_both) as e:
        bad = "[Service]\nType=oneshot\nExecStart=/bin/false\n"
        change_target(e, {MORE: bad, PROGRAM: "#!/bin/sh\nexit 1\n", FRAIL: bad})
        known = set(e.ids())
        assert e.start()[0] == 0
        there, _ = wait_back(e, known)
        assert there["error"].split("; ") == [
            "frail.service is failed after 8 s", "more.service has failed, and had not before",
            f"{PROGRAM} ended with 1: it said nothing",
        ]  # fmt: skip


def test_what_failed_before_may_fail_again(tmp_path: Path) -> None:
    """And a program in /etc takes the place of the packaged one of its name."""

    def broken(root: Path) -> None:
        write_unit(root, "broken.service", "[Service]\nType=oneshot\nExecStart=/bin/false\n")
        for place, status in (("usr/lib", 1), ("etc", 0)):
            program = root / place / "issu/verify.d/50-look"
            program.parent.mkdir(parents=True, exist_ok=True)
            program.write_text(f"#!/bin/sh\nexit {status}\n")
            program.chmod(0o755)

    with element(tmp_path, in_source=broken, in_target=broken) as e:
        assert e.upgrade()["result"] == "accepted"


def reaches(e: Element) -> bool:
    """Whether the element's web server is reached from outside."""
    there = ["ip", "netns", "exec", e.machine.network.outside, "timeout", "5", "bash", "-c"]
    return sh.run([*there, f"</dev/tcp/{net.ELEMENT}/80"], check=False).returncode == 0


@pytest.mark.parametrize("wish", ["report", "strict"])
def test_a_difference_in_the_kernel(tmp_path: Path, wish: str) -> None:
    """A unit takes the network down; the old root, which knows how, brings it up again."""
    ip = f"[Service]\nType=oneshot\nExecStart=/usr/sbin/ip link set {net.DEVICE}"

    def asks(root: Path) -> None:
        write_settings(root, f'[verify]\ncontinuity = "{wish}"\n')
        write_unit(root, "brings-up.service", f"{ip} up\n")

    def spoils(root: Path) -> None:
        write_unit(root, "spoils.service", f"{ip} down\n")

    with element(tmp_path, in_source=asks, in_target=spoils) as e:
        known = set(e.ids())
        assert e.start()[0] == 0
        if wish == "strict":
            reason = f"the kernel's state is not as it was: address {net.DEVICE} {net.ELEMENT6}"
            check_back(e, wait_back(e, known), "bookworm", reason)
            assert reaches(e)
        else:
            report = e.wait_end(known)
            assert report["result"] == "accepted"
            assert net.DEVICE in str(report["continuity"]["differences"])
            assert not reaches(e)  # control


# Where issu-arrive.service dies on the new root, once each, and its agent on the way back.
DEATHS = {
    "decided": ("wayback.py", "ask"),
    "reported": ("outcome.py", "write_history"),
    "ended": ("settle.py", "finish"),
    "freed": ("wayback.py", "free"),
}
STAGED = {"staged": ("stage.py", "stage")}


def test_killed_on_the_way_back(tmp_path: Path) -> None:
    """Wherever issu-arrive.service dies, it goes on; the agent's death is the end, and a reboot."""

    def ill(root: Path) -> None:
        in_both(root)
        make_mortal(root, DEATHS | STAGED)

    with element(tmp_path, in_source=in_both, in_target=ill) as e:
        change_target(e, {PROGRAM: "#!/bin/sh\nexit 1\n"})
        for point in DEATHS:
            mark = e.machine.path(f"/run/die-after-{point}")
            mark.touch()
            known = set(e.ids())
            assert e.start()[0] == 0
            check_back(e, wait_back(e, known), "bookworm", f"{PROGRAM} ended with 1")
            assert not mark.exists(), point
        e.machine.path("/run/die-after-staged").touch()
        assert e.start()[0] == 0
        assert e.machine.wait_exit(120) == box.REBOOT
    for image in ("a.img", "b.img"):
        with loop.mounted(tmp_path / image) as root:
            *_, there, back = history_of(root)
            assert '"result": "rolled-back"' in there
            assert "the agent died in phase stage (signal KILL); the machine reboots" in back


def spoil(e: Element, how: str) -> None:
    """Make the old root, which nobody uses now, one that cannot be gone back to."""
    if how == "no file system":
        e.machine.run(["dd", "if=/dev/zero", f"of={e.source}", "bs=1M", "count=1", "conv=fsync"])
    else:
        script = 'mount "$0" /mnt; rm /mnt/usr/lib/systemd/systemd; umount /mnt'
        e.machine.run(["sh", "-euc", script, e.source])


@pytest.mark.parametrize("how", ["no file system", "no init"])
def test_a_way_back_that_fails_reboots(tmp_path: Path, how: str) -> None:
    """The boot loader still starts the old root; both histories say what happened, if they can."""

    def asks(root: Path) -> None:
        write_settings(root, '[accept]\nmode = "manual"\n')

    with element(tmp_path, in_source=asks) as e:
        assert e.start()[0] == 0
        e.machine.wait_for(
            lambda: "waits for" in e.machine.run(["issu", "status"], check=False).stdout,
            60, "the upgrade waits",
        )  # fmt: skip
        spoil(e, how)
        e.machine.run(["issu", "rollback"])
        assert e.machine.wait_exit(120) == box.REBOOT
    for image in ("a.img", "b.img")[how == "no file system" :]:
        with loop.mounted(tmp_path / image) as root:
            there, back = history_of(root)
            assert '"result": "rolled-back"' in there
            assert "asked for by the operator" in there
            assert '"result": "failed"' in back
            assert "the machine reboots" in back


def dying(root: Path) -> None:
    """Let whoever looks whether the new root is healthy die of it."""
    place = root / "usr/lib/python3/dist-packages/issu_systemd/verify.py"
    text, head = place.read_text(), "    late = not_reached(manager, story)\n"
    assert head in text
    place.write_text(text.replace(head, f'    raise OSError(5, "Input/output error")\n{head}'))


@pytest.mark.parametrize("strategy", ["halt", "live"])
def test_an_arrival_that_dies_again_and_again_reboots(tmp_path: Path, strategy: str) -> None:
    """A new root whose disk is gone, say. What was left on the old one tells of it."""

    def choose(root: Path) -> None:
        write_settings(root, f'[switch]\nstrategy = "{strategy}"\n')

    with element(tmp_path, in_source=choose, in_target=dying) as e:
        assert e.start()[0] == 0
        assert e.machine.wait_exit(120) == box.REBOOT
    with loop.mounted(tmp_path / "a.img") as root:
        [word] = (root / "var/lib/issu/history").iterdir()
        assert word.suffix == ".unfinished"
