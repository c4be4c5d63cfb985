"""What the target's fstab asks for that is not here, and what it would hide."""

from __future__ import annotations

from pathlib import Path

import pytest

from issu_systemd import fstab
from issu_systemd.fstab import Entry

LINES = """
# a comment
UUID=1 / ext4 defaults 0 1
LABEL="data"   /srv/with\\040blank/ ext4 nofail,ro 0 2
/dev/sdz1 none swap sw
short
proc /proc proc
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc").mkdir()
    return tmp_path


def test_entries(root: Path) -> None:
    assert fstab.entries(root) == []
    (root / "etc/fstab").write_text(LINES)
    assert fstab.entries(root) == [
        Entry("UUID=1", "/", "ext4", ("defaults",)),
        Entry("LABEL=data", "/srv/with blank", "ext4", ("nofail", "ro")),
        Entry("/dev/sdz1", "none", "swap", ("sw",)),
        Entry("proc", "/proc", "proc", ()),
    ]


def test_odd_bytes_and_endless_lists(root: Path) -> None:
    (root / "etc/fstab").write_bytes(b"\xff\\000\0a /x\\777 ext4 x\n" + b"a /b c\n" * 10_000)
    found = fstab.entries(root)
    assert len(found) == fstab.MAX_ENTRIES
    assert "\0" not in "".join(found[0].what)
    assert fstab.missing(found[:1]) == ()


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """UUID 1 and /dev/sda1 are there; blkid finds label b."""
    link = str(tmp_path / "by-uuid/1")
    monkeypatch.setattr(fstab, "BY", tmp_path)
    monkeypatch.setattr(fstab, "block_number", lambda n: 2049 if n in (link, "/dev/sda1") else None)

    class Done:
        def __init__(self, stdout: str) -> None:
            self.stdout = stdout

    monkeypatch.setattr(
        fstab, "run", lambda argv, **_: Done("/dev/b\n" if "LABEL=b" in argv else "")
    )


@pytest.mark.parametrize(
    ("what", "options", "is_missing"),
    [
        ("UUID=1", "defaults", False),
        ("UUID=2", "defaults", True),
        ("UUID=2", "defaults,nofail", False),
        ("UUID=2", "noauto", False),
        ("LABEL=b", "", False),
        ("LABEL=c", "", True),
        ("ID=c", "", True),
        ("/dev/sda1", "", False),
        ("/dev/sdb1", "", True),
        ("tmpfs", "", False),
        ("server:/export", "", False),
        ("//server/share", "", False),
        ("/srv/image", "loop", False),
        ("NAME=2", "", False),
    ],
)
def test_missing(devices: None, what: str, options: str, *, is_missing: bool) -> None:
    entry = Entry(what, "/data", "ext4", tuple(options.split(",")))
    assert fstab.missing([entry]) == (((what, "/data"),) if is_missing else ())
    assert fstab.missing([entry._replace(point="/")]) == ()


def test_a_tag_leads_nowhere_else() -> None:
    assert fstab.escaped("a/../b c") == "a\\x2f..\\x2fb\\x20c"
    assert fstab.escaped("8a1b-22") == "8a1b-22"


@pytest.mark.parametrize(
    ("point", "carried", "hidden"),
    [
        ("/srv", ("/srv/data",), ["/srv/data"]),
        ("/srv", ("/srv/data", "/srv"), []),  # carried itself, so it is there already
        ("/srv/data", ("/srv/data",), []),
        ("/srv/data/more", ("/srv/data",), []),
        ("/sr", ("/srv/data",), []),
        ("/", ("/srv/data",), []),
        ("none", ("/srv/data",), []),
    ],
)
def test_hiding(point: str, carried: tuple[str, ...], hidden: list[str]) -> None:
    entry = Entry("tmpfs", point, "tmpfs", ())
    assert fstab.hiding([entry], carried) == tuple((point, path) for path in hidden)
    assert fstab.hiding([entry._replace(options=("noauto",))], carried) == ()
