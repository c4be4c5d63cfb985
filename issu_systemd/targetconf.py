"""What the target's own configuration says: default target, libc, boot parameters, policies.

Read as text from a tree that nobody vouches for: within bounds, and nothing of it is run.
"""

from __future__ import annotations

import re
from pathlib import Path

from . import elf
from .evidence import Policy
from .tree import resolve, text

LIBC = ("usr/lib/*/libc.so.6", "usr/lib64/libc.so.6", "usr/lib/libc.so.6")
UNIT_PATHS = ("etc/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system")
CMDLINE = Path("/proc/cmdline")
# Words that are of one root, or of how the kernel was loaded, and no wish for another kernel.
PASSING = (
    "root=", "rootflags=", "rootfstype=", "rootwait", "BOOT_IMAGE=", "initrd=", "ro", "rw",
    "resume=", "quiet", "splash", "systemd.machine_id=", "rauc.slot=",
)  # fmt: skip
_GRUB = re.compile(r"^[ \t]*linux(?:16|efi)?[ \t]+\S+[ \t]*(.*)$", re.MULTILINE)
_LOADER = re.compile(r"^options[ \t]+(.*)$", re.MULTILINE)
_EXTLINUX = re.compile(r"^[ \t]*append[ \t]+(.*)$", re.MULTILINE | re.IGNORECASE)
SELINUX, SELINUX_ENFORCE = Path("/sys/fs/selinux"), Path("/sys/fs/selinux/enforce")
APPARMOR = Path("/sys/kernel/security/apparmor/profiles")
MAX_PROFILES, MAX_POLICY_FILES, MAX_POLICY = 500, 1000, 1 << 16  # the last in bytes a file
_SELINUX = re.compile(r"^SELINUX=(\w+)", re.MULTILINE)


def oldest_kernel(root: Path, machine: int) -> tuple[int, ...]:
    """The oldest kernel that the tree's libc for this ELF machine runs on; () if unknown."""
    for pattern in LIBC:
        for path in sorted(root.glob(pattern))[:16]:
            place = resolve(root, str(path.relative_to(root)))
            if place.is_file() and elf.elf_machine(place) == machine:
                return elf.oldest_kernel(place)
    return ()


def default_target(root: Path) -> str:
    """The unit that the tree's default.target leads to, "" if it leads nowhere.

    Source: systemd.special(7); a link to /dev/null is a mask.
    """
    for place in UNIT_PATHS:
        link = resolve(root, place) / "default.target"
        if link.is_symlink() or link.is_file():
            there = resolve(root, f"{place}/default.target")
            return there.name if there.is_file() and there.stat().st_size else ""
    return ""


def boot_words(root: Path) -> set[str] | None:
    """The kernel command line that the tree's boot configuration wants, None if it has none."""
    plain = text(root, "etc/kernel/cmdline").strip()
    if plain:
        return {*plain.split()}
    found = _GRUB.findall(text(root, "boot/grub/grub.cfg"))
    entries = resolve(root, "boot/loader/entries")
    for path in sorted(entries.glob("*.conf"))[-1:] if entries.is_dir() else []:
        found += _LOADER.findall(text(root, f"boot/loader/entries/{path.name}"))
    found += _EXTLINUX.findall(text(root, "boot/extlinux/extlinux.conf"))
    return {word for word in found[0].split() if "$" not in word} if found else None


def command_line(root: Path) -> tuple[str, ...]:
    """What the tree's boot configuration wants otherwise than the running kernel: "+a", "-b"."""
    wanted = boot_words(root)
    if wanted is None:
        return ()
    runs = {*CMDLINE.read_text(errors="replace").split()}
    more = [f"+{word}" for word in sorted(wanted - runs) if not is_passing(word)]
    less = [f"-{word}" for word in sorted(runs - wanted) if not is_passing(word)]
    return (*more, *less)


def is_passing(word: str) -> bool:
    """Whether a boot parameter says nothing of what the kernel should do."""
    return any(word == p or (p.endswith("=") and word.startswith(p)) for p in PASSING)


def policies(root: Path) -> tuple[Policy, ...]:
    """Where the security policy that is in force differs from what the tree has."""
    return (*selinux(root), *apparmor(root))


def selinux(root: Path) -> tuple[Policy, ...]:
    """The difference in SELinux: in force here and not wanted there, or the other way round."""
    here = SELINUX_ENFORCE.exists()
    found = _SELINUX.findall(text(root, "etc/selinux/config"))
    there = found[-1].lower() if found else "absent"
    if here and there not in ("enforcing", "permissive"):
        return (Policy("SELinux", f"is in force here and {there} in the new root"),)
    if not here and there in ("enforcing", "permissive"):
        return (Policy("SELinux", f"is {there} in the new root and not in force here"),)
    return ()


def apparmor(root: Path) -> tuple[Policy, ...]:
    """The profiles of AppArmor that are enforced here and that the tree does not have."""
    try:
        lines = APPARMOR.read_text(errors="replace").splitlines()[:MAX_PROFILES]
    except OSError:
        return ()
    enforced = [line.rpartition(" (")[0] for line in lines if line.endswith("(enforce)")]
    enforced = [name for name in enforced if name and "//" not in name]  # no child profiles
    if not enforced:
        return ()
    top = resolve(root, "etc/apparmor.d")
    files = sorted(top.iterdir())[:MAX_POLICY_FILES] if top.is_dir() else []
    told = "".join(text(root, f"etc/apparmor.d/{p.name}", limit=MAX_POLICY) for p in files)
    lost = [name for name in enforced if name not in told]
    if not lost:
        return ()
    shown = ", ".join(lost[:5]) + (f" and {len(lost) - 5} more" if len(lost) > 5 else "")
    return (Policy("AppArmor", f"enforces {shown} here, which the new root has no profile for"),)
