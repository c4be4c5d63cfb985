"""Debian's own kernels for the guests, unpacked in the cache."""

import re
import tempfile
from pathlib import Path

from tests.rig import cache, roots, sh

PACKAGE = "linux-image-cloud-amd64"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class Archive:
    """apt for one suite, with lists of its own, whatever this machine runs."""

    def __init__(self, suite: str, work: Path) -> None:
        self.work = work
        source = work / "sources.list"
        source.write_text(f"deb [signed-by={KEYRING}] {roots.mirror()} {suite} main\n")
        for name in ("state/lists/partial", "cache/archives/partial"):
            (work / name).mkdir(parents=True)
        self.options = [
            "-q", "-o", "APT::Sandbox::User=root", "-o", f"Dir::State={work}/state",
            "-o", f"Dir::Cache={work}/cache", "-o", f"Dir::Etc::SourceList={source}",
            "-o", "Dir::Etc::SourceParts=/dev/null", "-o", "Dir::State::status=/dev/null",
            "-o", 'Acquire::Languages="none"',
        ]  # fmt: skip
        sh.run(["apt-get", *self.options, "update"], timeout=300)

    def real(self, package: str) -> str:
        """The versioned package that a meta package stands for, e.g. linux-image-6.1.0-41-..."""
        listed = sh.run(["apt-cache", *self.options, "depends", package]).stdout
        found = re.search(r"Depends: (linux-image-\S+)", listed)
        if not found:
            raise AssertionError(f"the archive has no {package}")
        return found[1]

    def unpack(self, package: str, into: Path) -> None:
        """Download a package and unpack it."""
        fetch = ["apt-get", *self.options, "download", package]
        sh.run(["sh", "-c", 'cd "$1" && shift && exec "$@"', "sh", self.work, *fetch], timeout=300)
        sh.run(["dpkg", "-x", next(self.work.glob("*.deb")), into], timeout=300)


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
