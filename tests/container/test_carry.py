"""What goes along: identity, files, mounts and the journal; and that nothing else does."""

import os
import re
from itertools import groupby
from pathlib import Path

from tests.rig import roots, sh

from .element import Element, element, row, write_settings, write_unit

STRANGE_ID = "0123456789abcdef0123456789abcdef"
HOST_KEYS = "etc/ssh/ssh_host_*"
SETTINGS = """
[carry]
files = ["/etc/machine-id", "/etc/hostname", "/etc/ssh/ssh_host_*", "/etc/element/s*"]
"""


def identity(root: Path) -> dict[str, bytes]:
    """Everything by which the world knows the system at `root`."""
    files = [root / "etc/machine-id", root / "etc/hostname", *root.glob(HOST_KEYS)]
    return {path.name: path.read_bytes() for path in files}


def test_identity_and_files(tmp_path: Path) -> None:
    strange: dict[str, bytes] = {}

    def stranger(root: Path) -> None:
        (root / "etc/machine-id").write_text(f"{STRANGE_ID}\n")
        (root / "etc/hostname").write_text("stranger\n")
        strange.update(identity(root))

    with element(tmp_path, "bookworm", "trixie", in_target=stranger) as e:
        own = identity(e.machine.path("/"))
        assert len(own) >= 8
        assert own.keys() == strange.keys()
        assert not [name for name in own if own[name] == strange[name]], "nothing to carry"
        place = e.machine.path("/etc/element")
        place.mkdir()
        (place / "secret").write_text("old\n")

        report = e.upgrade()
        assert report["result"] == "accepted", report
        assert identity(e.machine.path("/")) == own
        assert e.machine.run(["hostname"]).stdout == "element\n"
        assert not e.machine.path("/etc/element").exists(), "not in the default of `files`"

        # Back with a file of the element's own, and a name that has changed meanwhile.
        e.machine.path("/etc/hostname").write_text("node-7\n")
        write_settings(e.machine.path("/"), SETTINGS)
        place = e.machine.path("/etc/element")
        place.mkdir()
        for name in ("secret", "left-behind"):
            (place / name).write_text("new\n")
        (place / "symbolic").symlink_to("nowhere")
        (place / "secret").chmod(0o640)
        os.chown(place / "secret", 1234, 4321)
        os.setxattr(place / "secret", "user.colour", b"blue")
        os.utime(place / "secret", ns=(10**18, 10**18))

        report = e.upgrade(e.source)
        assert report["result"] == "accepted", report
        assert identity(e.machine.path("/")) == own | {"hostname": b"node-7\n"}
        assert e.machine.run(["hostname"]).stdout == "node-7\n"
        place = e.machine.path("/etc/element")
        assert sorted(path.name for path in place.iterdir()) == ["secret", "symbolic"]
        assert (place / "secret").read_text() == "new\n"
        status = (place / "secret").stat()
        assert (status.st_mode & 0o7777, status.st_uid, status.st_gid) == (0o640, 1234, 4321)
        assert status.st_mtime_ns == 10**18
        assert os.getxattr(place / "secret", "user.colour") == b"blue"
        assert (place / "symbolic").readlink() == Path("nowhere")


MOUNTS = '[carry]\nmounts = ["/var/lib/element", "/srv/data"]\n'
UNITS, OTHER = ("var-lib-element.mount", "srv-data.mount"), "var-lib-other.mount"
POINTS = ("/var/lib/element", "/srv/data")
FSTAB = """
tmpfs /var/lib/element tmpfs mode=0750 0 0
tmpfs /var/lib/other tmpfs mode=0750 0 0
"""


def with_mounts(root: Path) -> None:
    write_settings(root, MOUNTS)
    (root / "etc/fstab").write_text(FSTAB)


def carried(e: Element) -> list[list[str]]:
    """Where what is mounted, with device number and options, of the mounts to be carried."""
    lines = e.machine.run(["findmnt", "-rno", "TARGET,SOURCE,MAJ:MIN,FS-OPTIONS"]).stdout
    return sorted(line.split() for line in lines.splitlines() if line.split()[0] in POINTS)


def mount_count(device: Path) -> int:
    """How often the ext4 file system on the device was mounted, as itself counts."""
    text = sh.output(["dumpe2fs", "-h", device])
    return int(re.findall(r"^Mount count:\s+(\d+)$", text, re.MULTILINE)[0])


def test_mounts(tmp_path: Path) -> None:
    """Two file systems in memory, set up alike in both roots, of which one is carried; and one on
    a disk that the new root knows nothing of."""
    data = tmp_path / "data.img"
    sh.run([*roots.MKE2FS, data, "64M"])
    with element(
        tmp_path, "bookworm", "trixie", in_source=with_mounts, in_target=with_mounts, more=[data]
    ) as e:
        disk = e.machine.devices[2]
        unit = f"[Mount]\nWhat={disk}\nWhere=/srv/data\n"
        write_unit(e.machine.path("/"), "srv-data.mount", unit, wanted_by="local-fs.target")
        e.machine.systemctl("daemon-reload")
        e.machine.systemctl("start", "srv-data.mount")
        for point in (*POINTS, "/var/lib/other"):
            (e.machine.path(point) / "state").write_text("precious\n")
        before = carried(e)
        assert len(before) == 2
        count = mount_count(disk)

        for target in (e.target, e.source):
            report = e.upgrade(target)
            assert report["result"] == "accepted", report
            assert carried(e) == before
            for point in POINTS:
                assert (e.machine.path(point) / "state").read_text() == "precious\n"
            assert not (e.machine.path("/var/lib/other") / "state").exists()
            assert mount_count(disk) == count, "mounted anew"
            assert e.machine.systemctl("is-active", *UNITS) == "active\nactive"
            actions = {unit: row(report, unit)["action"] for unit in (*UNITS, OTHER)}
            assert actions == {**dict.fromkeys(UNITS, "kept"), OTHER: "restarted"}


def probes(e: Element, *select: str) -> list[str]:
    """What `logger -t probe` has written into the journal."""
    argv = ["journalctl", "--quiet", "--no-pager", "--output=cat", "--identifier=probe"]
    return e.machine.run([*argv, *select]).stdout.split()


# A boot and an upgrade, in the order of the journal.
STORY = (
    "Journal started",
    "Reached target graphical.target - Graphical Interface.",
    ": twelve",
    "stage: carried /etc/hostname",
    "Stopped target graphical.target - Graphical Interface.",
    "Journal stopped",
    "Journal started",
    "arrived on {target}",
    "Reached target graphical.target - Graphical Interface.",
    ": accepted: Debian GNU/Linux 13 (trixie) runs",
    ": thirteen",
)


def test_journal(tmp_path: Path) -> None:
    with element(tmp_path, "bookworm", "trixie") as e:
        log = ["logger", "-t", "probe"]
        e.machine.run([*log, "twelve"])
        report = e.upgrade()
        assert report["result"] == "accepted", report
        e.machine.run([*log, "thirteen"])

        boots = e.machine.run(["journalctl", "--quiet", "--list-boots"]).stdout
        boot = e.machine.boot_id().replace("-", "")
        assert re.findall(r"\b[0-9a-f]{32}\b", boots) == [boot]
        assert probes(e, "--boot") == ["twelve", "thirteen"]
        e.machine.wait_for(
            lambda: probes(e, "--directory=/var/log/journal") == ["twelve", "thirteen"],
            30,
            "the journal is on disk",
        )
        story = [end.format(target=e.target) for end in STORY]
        told = [line for line in e.machine.journal().splitlines() if line.endswith(tuple(story))]
        ends = (next(end for end in story if line.endswith(end)) for line in told)
        assert [end for end, _ in groupby(ends)] == story

        # Back, with no journal to be carried.
        write_settings(e.machine.path("/"), "[carry]\njournal = false\n")
        report = e.upgrade(e.source)
        assert report["result"] == "accepted", report
        e.machine.run([*log, "again"])
        assert probes(e, "--boot") == ["twelve", "again"]
