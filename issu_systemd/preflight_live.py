"""The checks of preflight that concern strategy live, or more than halt."""

from __future__ import annotations

from collections.abc import Iterator

from .evidence import Facts, version
from .finding import BLOCK, WARN, Check, Finding

LIVE_SINCE = (0, 2)  # strategy live came with it


def root_can_pivot(f: Facts) -> Iterator[Finding]:
    if f.strategy == "live" and (f.foreign_mounts or f.on_rootfs):
        why = "this is not PID 1's mount namespace" if f.foreign_mounts else "it is the initramfs"
        yield Finding(
            "pivot", BLOCK, f"the root cannot be changed below what runs: {why}",
            'set [switch] strategy = "halt"',
        )  # fmt: skip


def mounts_are_accounted_for(f: Facts) -> Iterator[Finding]:
    for point in f.stray_mounts:
        yield Finding(
            "stray-mount", BLOCK, f"{point} is mounted and the new root does not mount it",
            f"add {point} to [carry] mounts or to the new root's fstab, or umount {point}",
        )  # fmt: skip


def no_swap_on_root(f: Facts) -> Iterator[Finding]:
    for name in f.swap_files:
        yield Finding(
            "swap-file", BLOCK if f.strategy == "live" else WARN,
            f"swap file {name} would hold the old root for good",
            f"swapoff {name}",
        )  # fmt: skip


def target_knows_live(f: Facts) -> Iterator[Finding]:
    says = f.tree.issu_says if f.tree else ""
    if f.strategy == "live" and says and version(says) < LIVE_SINCE:
        yield Finding(
            "strategy", BLOCK, f"{says} in {f.target} does not know strategy live",
            'install a newer issu-systemd there, or set [switch] strategy = "halt"',
        )  # fmt: skip


LIVE: tuple[Check, ...] = (
    root_can_pivot, mounts_are_accounted_for, no_swap_on_root, target_knows_live,
)  # fmt: skip
