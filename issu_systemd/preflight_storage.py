"""The checks of preflight that concern devices, file systems and mounts."""

from __future__ import annotations

from collections.abc import Iterator

from .evidence import Facts
from .finding import BLOCK, INFO, WARN, Check, Finding

READ_ONLY_TYPES = ("squashfs", "erofs", "cramfs", "iso9660")
SERVED = ("MD with mdmon", "multipath", "network")  # some program has a part in it


def target_has_file_system(f: Facts) -> Iterator[Finding]:
    if not f.target_fstype:
        yield Finding(
            "no-file-system", BLOCK, f"{f.target} holds no file system that blkid knows",
            "write the new root to it, or name its partition (lsblk -f)",
        )  # fmt: skip


def target_is_writable(f: Facts) -> Iterator[Finding]:
    why = "is read-only" if f.target_read_only else f"is {f.target_fstype}, which is read-only"
    if f.target_read_only or f.target_fstype in READ_ONLY_TYPES:
        yield Finding(
            "read-only", BLOCK, f"{f.target} {why}; files must be carried to it",
            f"blockdev --setrw {f.target}, or use another file system",
        )  # fmt: skip


def target_is_not_in_use(f: Facts) -> Iterator[Finding]:
    for point in f.mounted_rw:
        yield Finding(
            "mounted", BLOCK, f"{f.target} is mounted read-write at {point}", f"umount {point}"
        )


def target_is_not_pinned(f: Facts) -> Iterator[Finding]:
    for holder in f.held_by:
        yield Finding("pinned", BLOCK, f"{f.target} is in use by {holder}",
                      "log out and in again, or end that process")  # fmt: skip


def target_is_unclaimed(f: Facts) -> Iterator[Finding]:
    if f.claimed and not f.held_by and not f.mounted_rw and f.target_dev != f.root_dev:
        yield Finding(
            "claimed", BLOCK, f"{f.target} is in use: by LVM, RAID, swap, a container, or one of "
            "its partitions is", f"lsblk {f.target} shows by what",
        )  # fmt: skip


def target_mounts(f: Facts) -> Iterator[Finding]:
    if f.mount_error:
        yield Finding(
            "mount", BLOCK, f"{f.target} does not mount: {f.mount_error}", f"fsck {f.target}"
        )


def carried_mounts_are_mounts(f: Facts) -> Iterator[Finding]:
    for point in f.not_mounts:
        yield Finding(
            "carry-mount", BLOCK, f"{point} is to be carried but nothing is mounted there",
            "mount it, or take it out of [carry] mounts",
        )  # fmt: skip


def root_is_a_device(f: Facts) -> Iterator[Finding]:
    if f.root_device is None:
        yield Finding(
            "no-root-device", INFO,
            "the running root is not on a block device; that it is free afterwards cannot be shown",
            "",
        )  # fmt: skip


def target_is_healthy(f: Facts) -> Iterator[Finding]:
    if f.file_system_state:
        yield Finding(
            "file-system", BLOCK, f"the file system on {f.target} {f.file_system_state}",
            f"fsck -f {f.target}; for the feature: tune2fs -O ^read-only {f.target}",
        )  # fmt: skip


def target_has_room(f: Facts) -> Iterator[Finding]:
    if f.tree and f.tree.no_room:
        yield Finding("room", BLOCK, f"{f.target} {f.tree.no_room}", "make room there")


def target_devices_are_here(f: Facts) -> Iterator[Finding]:
    for what, point in f.tree.fstab_missing if f.tree else ():
        yield Finding(
            "fstab-device", BLOCK,
            f"fstab in {f.target} mounts {what} at {point}, and there is no such device: "
            "the start would wait for it and fail",
            "connect it, or give its line the option nofail",
        )  # fmt: skip


def carried_mounts_stay_in_sight(f: Facts) -> Iterator[Finding]:
    for point, carried in f.tree.fstab_hides if f.tree else ():
        yield Finding(
            "fstab-hides", BLOCK,
            f"fstab in {f.target} mounts {point}, over {carried}, which is carried",
            f"add {point} to [carry] mounts, or take it out of that fstab",
        )  # fmt: skip


def layers_are_told(f: Facts) -> Iterator[Finding]:
    for of, kind, name in f.layers:
        what = f"{f.target if of == 'target' else 'the running root'} lies on {kind} ({name})"
        if kind in SERVED:
            yield Finding(
                "layers", WARN,
                f"{what}; programs that serve it stop with strategy halt, and restart with live",
                "make sure that it works without them meanwhile",
            )  # fmt: skip
        elif kind == "LUKS" and of == "target" and f.tree and name not in f.tree.crypttab:
            yield Finding(
                "layers", WARN, f"{what}, which crypttab there does not name: a reboot into it "
                "would not find it", f"add {name} to crypttab in the new root",
            )  # fmt: skip
        else:
            yield Finding("layers", INFO, f"{what}; it stays as it is", "")


STORAGE: tuple[Check, ...] = (
    target_has_file_system, target_is_writable, target_is_not_in_use, target_is_not_pinned,
    target_is_unclaimed, target_mounts, carried_mounts_are_mounts, root_is_a_device,
    target_is_healthy, target_has_room, target_devices_are_here, carried_mounts_stay_in_sight,
    layers_are_told,
)  # fmt: skip
