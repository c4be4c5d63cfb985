"""What strategy live refuses, what it gives up, and what it takes along instead."""

from pathlib import Path

from tests.rig import roots, sh

from .element import Element, element, let_go, wait_blocked, write_settings, write_unit
from .kinds import LIVE, SLEEP
from .test_live_failure import services
from .whole import check_accepted, check_of, suite

POINT = "/srv"
CARRY = f'{LIVE}[carry]\nmounts = ["{POINT}"]\n'
VERSION = "usr/lib/python3/dist-packages/issu_systemd/__init__.py"
GATE = "/run/gate"  # where a service of the new root waits when it is restarted
WAIT = f"ExecStartPre=mkfifo {GATE}\nExecStartPre=head -c1 {GATE}\n".replace("=", "=/usr/bin/")


def refused(e: Element, *words: str) -> None:
    """The upgrade is refused, for these words, and the system is the one it was."""
    was, ids = suite(e), set(e.ids())
    status, _ = e.start()
    assert status != 0
    (id,) = set(e.ids()) - ids
    report = e.report(id)
    assert report["result"] == "refused", report
    assert [word for word in words if word not in report["error"]] == [], report["error"]
    assert suite(e) == was
    e.machine.systemctl("reset-failed")


def mount_of(e: Element, point: str) -> str:
    """The device that is mounted at a point, "" if none."""
    argv = ["findmnt", "-rno", "SOURCE", "--mountpoint", point]
    return e.machine.run(argv, check=False).stdout.strip()


def only_live(root: Path) -> None:
    write_settings(root, LIVE)


def in_target(root: Path) -> None:
    write_settings(root, LIVE)
    (root / "etc/fstab").write_text("tmpfs /opt tmpfs defaults 0 0\n")


def test_every_mount_is_accounted_for(tmp_path: Path) -> None:
    """One that the new root does not mount is refused, unless it is carried."""
    data = tmp_path / "data.img"
    sh.run([*roots.MKE2FS, data, "64M"])
    with element(tmp_path, in_source=only_live, in_target=in_target, more=[data]) as e:
        disk = str(e.machine.devices[2])
        e.machine.run(["mount", disk, POINT])
        refused(e, f"{POINT} is mounted and the new root does not mount it", "[carry] mounts")

        write_settings(e.machine.path("/"), CARRY)
        writer = f"exec >{POINT}/log; while read x; do echo $x; done"
        feed = ["sh", "-c", f"mkfifo /run/feed; exec 5<>/run/feed; exec <&5; {writer}"]
        e.machine.run(["systemd-run", "--quiet", "--unit=writer", *feed])
        report = e.upgrade()
        assert report["result"] == "accepted", report
        assert mount_of(e, POINT) == disk
        assert mount_of(e, "/opt") == "tmpfs"  # of the new root's fstab
        # Whoever has a file open there goes on writing to it.
        e.machine.run(["sh", "-c", "echo still >/run/feed"])
        log = e.machine.path(f"{POINT}/log")
        e.machine.wait_for(lambda: log.read_text() == "still\n", 10, "the line is written")
        e.machine.systemctl("stop", "writer")

        # Back: the other root has a unit for it (in a container fstab(5) may name no device), and
        # /opt is in memory.
        unit = f"[Mount]\nWhat={disk}\nWhere={POINT}\n[Install]\nWantedBy=local-fs.target\n"
        place = "/mnt/etc/systemd/system/srv.mount"
        script = 'mount "$0" /mnt; printf %s "$2" >"$1"; systemctl --root=/mnt enable srv.mount'
        e.machine.run(["sh", "-euc", f"{script}; umount /mnt", e.source, place, unit])
        report = e.upgrade(e.source)
        check_accepted(e, report, "bookworm")
        assert mount_of(e, POINT) == disk
        assert (e.machine.path(POINT) / "log").read_text() == "still\n"


def old_package(root: Path) -> None:
    """A package that knows nothing of strategy live."""
    in_target(root)
    (root / VERSION).write_text('__version__ = "0.1.0"\n')


def thief(root: Path) -> None:
    """What only this root has takes the staged root away when it stops."""
    write_settings(root, LIVE)
    stop = "ExecStop=-/usr/bin/sh -c 'test ! -e /run/thief || umount --lazy /sysroot'\n"
    write_unit(root, "thief.service", f"[Service]\nExecStart={SLEEP}\n{stop}")


def test_an_old_package_and_a_lost_root(tmp_path: Path) -> None:
    with element(tmp_path, in_source=thief, in_target=old_package) as e:
        refused(e, f"{e.target}", "0.1.0", "strategy live")
        new = 'mount "$0" /mnt; echo "__version__ = \\"0.2.0\\"" >"/mnt/$1"; umount /mnt'
        e.machine.run(["sh", "-euc", new, e.target, VERSION])

        before, ids = services(e), set(e.ids())
        e.machine.path("/run/thief").touch()
        assert e.start()[0] == 0
        report = e.wait_end(ids)
        assert report["result"] == "failed"
        assert "/sysroot" in report["error"]
        e.machine.systemctl("reset-failed")
        check_of(e, "bookworm", e.target)
        assert services(e) == before
        assert not e.machine.path("/sysroot").exists()
        e.machine.path("/run/thief").unlink()
        # Negative control; that thief.service could unmount is told each time.
        check_accepted(e, e.upgrade(), "trixie", foreseen=("way-back", "stop-action"))


def waits(root: Path) -> None:
    """The service of this root waits at a named pipe before it starts."""
    in_target(root)
    write_unit(root, "waits.service", f"[Service]\n{WAIT}ExecStart={SLEEP}\n")


def no_wait(root: Path) -> None:
    write_settings(root, LIVE)
    write_unit(root, "waits.service", f"[Service]\nExecStart={SLEEP}\n")


def test_a_second_one_while_services_restart(tmp_path: Path) -> None:
    with element(tmp_path, in_source=no_wait, in_target=waits) as e:
        ids = set(e.ids())
        assert e.start()[0] == 0
        wait_blocked(e.machine, GATE)
        assert suite(e) == "trixie"
        assert ": arrive, going to" in e.machine.run(["issu", "status"]).stdout
        done = e.machine.run(["issu", "start", e.source], check=False)
        assert done.returncode == 6, done.stdout + done.stderr
        assert "another upgrade" in done.stdout + done.stderr
        assert e.machine.systemctl("is-active", "nginx.service") == "active"
        let_go(e.machine, GATE)
        ids |= {id for id in e.ids() if e.report(id)["result"] == "refused"}
        report = e.wait_end(ids)
        assert report["result"] == "accepted", report
        assert suite(e) == "trixie"
