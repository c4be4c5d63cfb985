"""What the record tells of both roots, and of the upgrade's end, once preflight has seen them."""

from __future__ import annotations

from pathlib import Path

from . import __version__, facts, mounts, settings, survey
from .evidence import Facts
from .record import Record
from .systemd import Manager


def source(manager: Manager, story: Record, seen: Facts) -> dict[str, object]:
    """The running root, as the report tells it."""
    root = mounts.mount_at("/")
    return {
        "device": seen.root_device, "dev": story.old_dev, "fstype": root.fstype if root else "",
        "package": __version__, "systemd": manager.version(), **facts.os_release(Path("/")),
    }  # fmt: skip


def target(story: Record, seen: Facts, root: Path, chosen: settings.Settings) -> None:
    """Note what the record must know of the new root, its own [arrive] and [verify] included."""
    tree, own = seen.tree, settings.load(root)
    if tree:
        story.target |= {
            "os": tree.os, "version": tree.version, "package": tree.issu_says.split()[-1],
            "systemd": tree.init_says.partition("(")[2].rstrip(")"),
        }  # fmt: skip
    story.new_dev = root.stat().st_dev
    story.skip, story.lifted = survey.wanted(chosen, own, tree.issu_says if tree else "")
    end(story, chosen, own)


def end(story: Record, chosen: settings.Settings, own: settings.Settings) -> None:
    """Note when the new root counts as healthy, and who accepts it; `own` are its settings."""
    story.verify_units = sorted({*chosen.verify_units, *own.verify_units})
    story.verify_timeout_usec = chosen.verify_timeout_usec
    story.verify_settle_usec = max(chosen.verify_settle_usec, own.verify_settle_usec)
    story.verify_program_timeout_usec = max(
        chosen.verify_program_timeout_usec, own.verify_program_timeout_usec
    )
    # What the root that is no good did to the kernel, the way back may mend.
    strict = "strict" in (chosen.verify_continuity, own.verify_continuity)
    spared = story.way_back.get("reboot")
    story.verify_continuity = "strict" if strict and not spared else "report"
    # Whoever goes back has decided already.
    story.accept_mode = "auto" if story.way_back else chosen.accept_mode
    story.accept_timeout_usec = chosen.accept_timeout_usec
    # One root that has it is enough: who goes back must find it, too.
    loaders = [s.boot_loader for s in (chosen, own) if s.boot_loader != "none"]
    story.boot_loader = loaders[0] if loaders else "none"
    story.hook_timeout_usec = max(chosen.hook_timeout_usec, own.hook_timeout_usec)
