"""What the target's own configuration says, read from false trees; none of them leads outside."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from issu_systemd import targetconf
from issu_systemd.evidence import Policy

from .test_elf import elf, tag


@pytest.fixture
def root(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    for name in ("etc/systemd/system", "usr/lib/systemd/system"):
        (top / name).mkdir(parents=True)
    return top


def put(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


# --- default target -----------------------------------------------------------------------------

ETC, USR = "etc/systemd/system", "usr/lib/systemd/system"


def test_default_target(root: Path) -> None:
    assert targetconf.default_target(root) == ""
    put(root, f"{USR}/graphical.target", "[Unit]\n")
    put(root, f"{USR}/multi-user.target", "[Unit]\n")
    (root / USR / "default.target").symlink_to("graphical.target")
    assert targetconf.default_target(root) == "graphical.target"
    (root / ETC / "default.target").symlink_to(f"/{USR}/multi-user.target")
    assert targetconf.default_target(root) == "multi-user.target"


@pytest.mark.parametrize("to", ["/dev/null", "nowhere.target", "default.target", "../../../../x"])
def test_a_default_target_that_leads_nowhere(root: Path, to: str) -> None:
    put(root.parent, "x", "outside\n")
    put(root, f"{USR}/default.target", "[Unit]\n")
    (root / ETC / "default.target").symlink_to(to)
    try:
        assert targetconf.default_target(root) == ""
    except OSError as error:  # a loop: read_all makes "not checked" of it
        assert to == "default.target", error


# --- libc ---------------------------------------------------------------------------------------


def test_the_libc_of_the_right_machine_counts(root: Path) -> None:
    assert targetconf.oldest_kernel(root, 62) == ()
    other = bytearray(elf(tag(9, 9, 9)))
    other[18] = 3
    for name, data in (("i386-linux-gnu", bytes(other)), ("x86_64-linux-gnu", elf(tag(3, 2, 0)))):
        place = root / "usr/lib" / name
        place.mkdir()
        (place / "libc.so.6").write_bytes(data)
    assert targetconf.oldest_kernel(root, 62) == (3, 2, 0)
    assert targetconf.oldest_kernel(root, 3) == (9, 9, 9)
    assert targetconf.oldest_kernel(root, 183) == ()


# --- kernel command line ------------------------------------------------------------------------

GRUB = """
menuentry 'Debian' {
\tlinux   /boot/vmlinuz-6.1 root=UUID=2 ro quiet isolcpus=3 $extra
}
menuentry 'old' {
\tlinux   /boot/vmlinuz-5.1 root=UUID=2 ro single
}
"""


@pytest.mark.parametrize(
    ("name", "text", "differs"),
    [
        ("etc/kernel/cmdline", "root=/dev/b console=ttyS0\n", ()),
        ("etc/kernel/cmdline", "root=/dev/b console=ttyS0 isolcpus=3\n", ("+isolcpus=3",)),
        ("etc/kernel/cmdline", "root=/dev/b\n", ("-console=ttyS0",)),
        ("etc/kernel/cmdline", "", ()),
        ("boot/grub/grub.cfg", GRUB, ("+isolcpus=3", "-console=ttyS0")),
        ("boot/grub/grub.cfg", "set timeout=5\n", ()),
        ("boot/loader/entries/a.conf", "title a\noptions root=x console=ttyS0 a\n", ("+a",)),
        ("boot/extlinux/extlinux.conf", "label a\n  APPEND root=x console=ttyS0 b\n", ("+b",)),
        ("etc/other", "x", ()),
    ],
)
def test_command_line(
    root: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, differs: tuple[str, ...]
) -> None:
    running = root.parent / "cmdline"
    running.write_text("BOOT_IMAGE=/vmlinuz root=/dev/a ro quiet console=ttyS0\n")
    monkeypatch.setattr(targetconf, "CMDLINE", running)
    put(root, name, text)
    assert targetconf.command_line(root) == differs


def test_a_boot_configuration_made_to_keep_us_busy(root: Path) -> None:
    put(root, "boot/grub/grub.cfg", "\n" * (1 << 20))
    put(root, "boot/extlinux/extlinux.conf", " " * (1 << 20))
    start = time.monotonic()
    assert targetconf.boot_words(root) is None
    assert time.monotonic() - start < 5


# --- policies -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("here", "config", "says"),
    [
        (False, None, ""),
        (False, "SELINUX=disabled\n", ""),
        (False, "# SELINUX=enforcing\nSELINUX=permissive\n", "permissive in the new root"),
        (True, "SELINUX=enforcing\nSELINUXTYPE=default\n", ""),
        (True, "SELINUX=disabled\n", "disabled in the new root"),
        (True, None, "absent in the new root"),
    ],
)
def test_selinux(
    root: Path, monkeypatch: pytest.MonkeyPatch, *, here: bool, config: str | None, says: str
) -> None:
    monkeypatch.setattr(targetconf, "SELINUX_ENFORCE", root.parent / "enforce")
    monkeypatch.setattr(targetconf, "APPARMOR", root.parent / "none")
    if here:
        (root.parent / "enforce").write_text("1")
    if config is not None:
        put(root, "etc/selinux/config", config)
    found = targetconf.policies(root)
    assert [policy.name for policy in found] == (["SELinux"] if says else [])
    assert says in "".join(policy.differs for policy in found)


def test_apparmor(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = root.parent / "profiles"
    monkeypatch.setattr(targetconf, "APPARMOR", loaded)
    assert targetconf.apparmor(root) == ()
    loaded.write_text("/usr/sbin/a (enforce)\nb//child (enforce)\nc (complain)\n")
    lost = "enforces /usr/sbin/a here, which the new root has no profile for"
    assert targetconf.apparmor(root) == (Policy("AppArmor", lost),)
    put(root, "etc/apparmor.d/usr.sbin.a", "profile /usr/sbin/a { }\n")
    os.mkfifo(root / "etc/apparmor.d/pipe")
    assert targetconf.apparmor(root) == ()
    loaded.write_text("".join(f"p{i} (enforce)\n" for i in range(9)))
    (found,) = targetconf.apparmor(root)
    assert "and 4 more" in found.differs
