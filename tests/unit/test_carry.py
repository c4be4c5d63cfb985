"""What goes along to the new root, whole and nowhere else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from issu_systemd import carry
from issu_systemd.carry import archive_name, copy, inside
from issu_systemd.errors import IssuError

DATA = Path(__file__).parent / "data"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: chown(2), mknod(2)")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The new root; `outside` beside it must stay empty."""
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    return tmp_path / "root"


@pytest.fixture
def outside(root: Path) -> Path:
    return root.parent / "outside"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_text("ours\n")
    return path


# --- where it goes ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/etc/hostname", "etc/hostname", "//etc/hostname"])
def test_inside(root: Path, path: str) -> None:
    assert inside(root, path) == root / "etc/hostname"


def test_inside_at_the_top_and_below_what_is_missing(root: Path) -> None:
    assert inside(root, "/hostname") == root / "hostname"
    assert inside(root, "/var/lib/x/y") == root / "var/lib/x/y"


def test_inside_follows_a_link_that_stays(root: Path) -> None:
    (root / "usr/etc").mkdir(parents=True)
    (root / "conf").symlink_to("usr/etc")
    assert inside(root, "/conf/hostname") == root / "usr/etc/hostname"


@pytest.mark.parametrize("how", ["absolute", "dots"])
def test_a_link_out_of_the_tree_is_an_error(root: Path, outside: Path, how: str) -> None:
    (root / "conf").symlink_to(outside if how == "absolute" else "../outside")
    with pytest.raises(IssuError, match=f"/conf/hostname .* {outside}"):
        inside(root, "/conf/hostname")


def test_a_neighbour_with_the_same_beginning_is_outside(root: Path) -> None:
    (root.parent / "root2").mkdir()
    (root / "conf").symlink_to("../root2")
    with pytest.raises(IssuError):
        inside(root, "/conf/hostname")


# --- what is copied -----------------------------------------------------------------------------


def test_a_file_keeps_mode_times_and_attributes(root: Path, source: Path) -> None:
    source.chmod(0o640)
    os.utime(source, ns=(1_000_000_007, 2_000_000_009))
    os.setxattr(source, "user.note", b"x")
    place = root / "etc/new/source"
    copy(source, place)
    assert place.read_text() == "ours\n"
    assert stat.S_IMODE(place.stat().st_mode) == 0o640
    assert place.stat().st_mtime_ns == 2_000_000_009
    assert os.getxattr(place, "user.note") == b"x"


@root_only
def test_a_file_keeps_its_owner(root: Path, source: Path) -> None:
    os.chown(source, 1234, 5678)
    copy(source, root / "etc/source")
    status = (root / "etc/source").stat()
    assert (status.st_uid, status.st_gid) == (1234, 5678)


@root_only
@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6711], ids=oct)
def test_a_file_keeps_the_mode_bits_that_a_chown_clears(
    root: Path, source: Path, mode: int
) -> None:
    os.chown(source, 1234, 5678)
    source.chmod(mode)
    copy(source, root / "etc/source")
    assert stat.S_IMODE((root / "etc/source").stat().st_mode) == mode


def test_a_link_stays_a_link(root: Path, source: Path) -> None:
    link = source.with_name("link")
    link.symlink_to("nowhere/at/all")
    copy(link, root / "etc/link")
    assert (root / "etc/link").readlink() == Path("nowhere/at/all")


def test_what_stood_there_is_replaced(root: Path, source: Path, outside: Path) -> None:
    """A link there is replaced too, not written through."""
    (outside / "victim").write_text("theirs\n")
    (root / "etc/source").symlink_to(outside / "victim")
    copy(source, root / "etc/source")
    assert (root / "etc/source").read_text() == "ours\n"
    assert not (root / "etc/source").is_symlink()
    assert (outside / "victim").read_text() == "theirs\n"
    assert [path.name for path in (root / "etc").iterdir()] == ["source"]  # no draft is left


def test_a_reader_never_sees_half_a_file(root: Path, source: Path) -> None:
    place = root / "etc/source"
    place.write_text("theirs\n")
    with place.open() as reader:
        copy(source, place)
        assert reader.read() == "theirs\n"


def test_what_cannot_be_copied_leaves_no_draft(root: Path, source: Path) -> None:
    (root / "etc/source").mkdir()
    (root / "etc/source/in-the-way").touch()
    with pytest.raises(OSError, match="directory"):
        copy(source, root / "etc/source")
    assert [path.name for path in (root / "etc").iterdir()] == ["source"]


def tree(top: Path) -> Path:
    (top / "keys/deep").mkdir(parents=True)
    (top / "keys/a").write_text("a")
    (top / "keys/deep/b").write_text("b")
    (top / "keys/link").symlink_to("a")
    (top / "keys").chmod(0o700)
    os.utime(top / "keys", ns=(5_000_000_000, 6_000_000_000))
    return top / "keys"


def test_a_directory_goes_with_all_that_is_in_it(root: Path, tmp_path: Path) -> None:
    copy(tree(tmp_path), root / "etc/keys")
    place = root / "etc/keys"
    assert (place / "a").read_text() + (place / "deep/b").read_text() == "ab"
    assert (place / "link").readlink() == Path("a")
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    assert place.stat().st_mtime_ns == 6_000_000_000


def test_a_directory_is_added_to_what_is_there(root: Path, tmp_path: Path) -> None:
    (root / "etc/keys").mkdir()
    (root / "etc/keys/theirs").touch()
    copy(tree(tmp_path), root / "etc/keys")
    assert {p.name for p in (root / "etc/keys").iterdir()} == {"a", "deep", "link", "theirs"}


@pytest.mark.parametrize("name", ["keys", "keys/deep"])
def test_a_directory_is_not_copied_through_a_link(
    root: Path, outside: Path, tmp_path: Path, name: str
) -> None:
    """A link that leads out of the new root leads into the running one."""
    (root / "etc" / name).parent.mkdir(exist_ok=True)
    (root / "etc" / name).symlink_to(outside)
    copy(tree(tmp_path), root / "etc/keys")
    assert list(outside.iterdir()) == []
    assert (root / "etc/keys/deep/b").read_text() == "b"


# --- files, mounts, history ---------------------------------------------------------------------


def test_files_by_pattern(root: Path, tmp_path: Path) -> None:
    place = tmp_path / "ssh"
    place.mkdir()
    for name in ("ssh_host_rsa", "ssh_host_ed25519", "moduli"):
        (place / name).write_text(name)
    patterns = (f"{place}/ssh_host_*", f"{place}/ssh_host_rsa", f"{place}/nosuch*")
    want = [f"{place}/ssh_host_ed25519", f"{place}/ssh_host_rsa"]
    assert carry.files(patterns, root) == want
    there = root / str(place).lstrip("/")
    assert {path.name for path in there.iterdir()} == {"ssh_host_rsa", "ssh_host_ed25519"}


def test_a_file_that_cannot_be_carried_is_named(root: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(IssuError, match=f"{pipe} cannot be carried"):
        carry.files((str(pipe),), root)


def test_a_mount_is_not_bound_through_a_link(
    root: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`mount` follows a link, and would mount on the running root what it leads to."""
    bound: list[Path] = []
    monkeypatch.setattr(carry.mounts, "bind", lambda _, place: bound.append(place))  # type: ignore[attr-defined]
    (root / "data").symlink_to(outside)
    with pytest.raises(IssuError):
        carry.bind_mounts(("/data",), root)
    assert bound == []


def test_reports_that_the_new_root_does_not_have(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = tmp_path / "history"
    ours.mkdir()
    monkeypatch.setattr(carry, "HISTORY", ours)
    carry.history(root)  # none is no error
    theirs = root / str(ours).lstrip("/")
    theirs.mkdir(parents=True, exist_ok=True)
    (theirs / "1.json").write_text("theirs")
    for name in ("1.json", "2.json", ".3.json.new"):
        (ours / name).write_text("ours")
    carry.history(root)
    assert {path.name: path.read_text() for path in theirs.iterdir()} == {
        "1.json": "theirs",
        "2.json": "ours",
    }


# --- the journal --------------------------------------------------------------------------------

ARCHIVED = sorted(DATA.glob("system@*.journal"))  # headers of files that journald 252, 257 named


@pytest.mark.parametrize("header", ARCHIVED, ids=lambda path: path.name)
def test_the_archive_name_is_the_one_journald_gives(header: Path, tmp_path: Path) -> None:
    online = tmp_path / "system.journal"
    online.write_bytes(header.read_bytes())
    assert archive_name(online) == header.name
    assert archive_name(header) == header.name  # which has it already


def test_the_archive_name_of_a_users_journal(tmp_path: Path) -> None:
    path = tmp_path / "user-1000.journal"
    seqnum_id = bytes(range(16))
    fields = (0x3E).to_bytes(8, "little") + bytes(8) + (0x660E6171E0C41).to_bytes(8, "little")
    path.write_bytes(b"LPKSHHRH" + bytes(64) + seqnum_id + bytes(80) + fields + bytes(100))
    assert archive_name(path) == (
        "user-1000@000102030405060708090a0b0c0d0e0f-000000000000003e-000660e6171e0c41.journal"
    )


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, list[list[str]]]:
    """/var/log/journal with an online and an old file, and what is run."""
    place = tmp_path / "journal"
    (place / "machine").mkdir(parents=True)
    (place / "machine/system.journal").write_bytes(ARCHIVED[0].read_bytes())
    (place / "machine/system@old.journal").write_bytes(b"old")
    os.utime(place / "machine/system@old.journal", (1000, 1000))
    ran: list[list[str]] = []
    monkeypatch.setattr(carry, "JOURNAL", place)
    monkeypatch.setattr(carry, "run", lambda argv, **how: ran.append(argv))
    return place, ran


def test_the_journal_of_this_boot_is_copied_under_its_archive_name(
    root: Path, journal: tuple[Path, list[list[str]]]
) -> None:
    place, ran = journal
    carry.journal(root, 2000)
    copied = root / str(place).lstrip("/") / "machine"
    assert [path.name for path in copied.iterdir()] == [ARCHIVED[0].name]
    assert ran == [["journalctl", "--relinquish-var"]]
    carry.journal(root, 0)
    assert len(list(copied.iterdir())) == 2  # an old file counts where the boot was earlier


def test_a_volatile_journal_needs_nothing(
    root: Path, journal: tuple[Path, list[list[str]]]
) -> None:
    place, ran = journal
    for path in place.rglob("*.journal"):
        path.unlink()
    carry.journal(root, 0)
    assert ran == []
    assert not (root / str(place).lstrip("/")).exists()
