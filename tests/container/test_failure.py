"""What fails after preflight and before the switch: the old root is as it was."""

from pathlib import Path

import pytest

from .element import Element, active, assert_as_before, element, write_settings, write_unit

PAIRS = [("bookworm", "trixie"), ("trixie", "bookworm")]


def fail(e: Element, *, begun: bool) -> dict[str, object]:
    """An upgrade that must fail on the old root and leave it as it was; its report.

    `begun` says whether services were stopped, so that `systemctl start` had ended with success.
    """
    e.machine.systemctl("daemon-reload")  # PID 1 looks what is mounted
    before, units, ids = e.state(), active(e.machine), set(e.ids())
    status, printed = e.start()
    assert (status == 0) == begun, printed
    report = e.wait_end(ids)
    assert report["result"] == "failed"
    e.machine.systemctl("reset-failed")
    assert_as_before(e, before, units)
    return report


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_the_new_root_is_lost_in_release(tmp_path: Path, source: str, target: str) -> None:
    """A unit unmounts the staged root when it stops: PID 1 is asked for what is no root."""

    def thief(root: Path) -> None:
        stop = "ExecStop=-/usr/bin/sh -c 'test ! -e /run/thief || umount --lazy /sysroot'\n"
        write_unit(root, "thief.service", f"[Service]\nExecStart=/usr/bin/sleep 1d\n{stop}")

    with element(tmp_path, source, target, in_source=thief) as e:
        e.machine.path("/run/thief").touch()
        boot_id = e.machine.boot_id()
        report = fail(e, begun=True)
        assert "/sysroot" in str(report["error"])
        assert e.machine.boot_id() == boot_id
        e.machine.path("/run/thief").unlink()
        assert e.upgrade()["result"] == "accepted"  # negative control


def test_a_full_disk_and_a_place_that_is_no_directory(tmp_path: Path) -> None:
    """What is full is refused beforehand; what cannot be staged is named, and nothing is left."""

    def carries(root: Path) -> None:
        write_settings(root, '[carry]\nfiles = ["/etc/machine-id", "/etc/large"]\n')
        (root / "etc/large").write_bytes(bytes(8 << 20))

    def full(root: Path) -> None:
        with (root / "filler").open("wb") as file, pytest.raises(OSError, match="No space left"):
            while True:
                file.write(bytes(1 << 20))
                file.flush()

    with element(tmp_path, in_source=carries, in_target=full) as e:
        assert e.start()[0] != 0
        report = e.report()
        assert report["result"] == "refused"
        assert [f["id"] for f in report["findings"] if f["severity"] == "block"] == ["room"]
        drafts = "mount $0 /mnt && find /mnt/etc -name '.*.issu' && rm /mnt/filler; umount /mnt"
        assert e.machine.run(["sh", "-c", drafts, e.target]).stdout == ""

        point = "/var/lib/element"
        e.machine.path("/etc/issu/conf.d/50-test.toml").write_text(f'[carry]\nmounts=["{point}"]\n')
        e.machine.run(["mkdir", point])
        e.machine.run(["mount", "-t", "tmpfs", "element", point])
        e.machine.run(["sh", "-c", f"mount $0 /mnt && touch /mnt{point}; umount /mnt", e.target])
        report = fail(e, begun=False)
        assert point in str(report["error"])
        e.machine.run(["sh", "-c", f"mount $0 /mnt && rm /mnt{point}; umount /mnt", e.target])
        assert e.upgrade()["result"] == "accepted"  # negative control
