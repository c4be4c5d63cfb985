"""Debian's own kernels for the guests, unpacked in the cache."""

import tempfile
from pathlib import Path

from tests.rig import cache, roots, sh
from tests.rig.archive import Archive

PACKAGE = "linux-image-cloud-amd64"


def tree(suite: str = "bookworm") -> Path:
    """Directory with boot/vmlinuz-* and lib/modules/*, modules.dep made."""

    def build(part: Path) -> None:
        part.mkdir()
        with tempfile.TemporaryDirectory() as work:
            archive = Archive(suite, Path(work))
            archive.unpack(archive.real(PACKAGE), part)
        if not (part / "lib").exists():  # since Debian 13
            (part / "lib").symlink_to("usr/lib")
        sh.run(["depmod", "-b", part, release(part)])

    return cache.entry(f"kernel-{suite}-{cache.digest(PACKAGE, roots.mirror())}", build)


def release(top: Path) -> str:
    """The kernel's release, as uname -r prints it."""
    return next((top / "lib/modules").iterdir()).name


def image(top: Path) -> Path:
    """The kernel itself."""
    return next((top / "boot").glob("vmlinuz-*"))
