"""Debian's own kernel for the guests, unpacked in the cache."""

import re
from pathlib import Path

from tests.rig import cache, sh

PACKAGE = "linux-image-cloud-amd64"


def real_package() -> str:
    """The versioned package that the meta package stands for, e.g. linux-image-6.1.0-41-..."""
    listed = sh.run(["apt-cache", "depends", PACKAGE]).stdout
    found = re.search(r"Depends: (linux-image-\S+)", listed)
    if not found:
        raise AssertionError(f"apt knows no {PACKAGE}: run apt-get update")
    return found[1]


def tree() -> Path:
    """Directory with boot/vmlinuz-* and lib/modules/*, modules.dep made."""
    package = real_package()

    def build(part: Path) -> None:
        part.mkdir()
        fetch = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package]
        sh.run(["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", part, *fetch], timeout=300)
        deb = next(part.glob("*.deb"))
        sh.run(["dpkg", "-x", deb, part])
        deb.unlink()
        sh.run(["depmod", "-b", part, release(part)])

    return cache.entry(f"kernel-{package}", build)


def release(top: Path) -> str:
    """The kernel's release, as uname -r prints it."""
    return next((top / "lib/modules").iterdir()).name


def image(top: Path) -> Path:
    """The kernel itself."""
    return next((top / "boot").glob("vmlinuz-*"))
