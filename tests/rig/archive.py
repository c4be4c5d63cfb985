"""Packages of Debian's archive, unpacked and not installed."""

import re
import shutil
import tempfile
from pathlib import Path

from . import cache, roots, sh

KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
# What rehearsal and verity need, and the roots under test do not have: no unit of it is wanted.
TOOLS = (
    *("systemd-container", "cryptsetup-bin", "libcryptsetup12", "libpopt0"),
    *("libdevmapper1.02.1", "libargon2-1", "libjson-c5"),
)
PROGRAMS = ("systemd-nspawn", "veritysetup")


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
        [deb] = self.work.glob("*.deb")
        sh.run(["dpkg", "-x", deb, into], timeout=300)
        deb.unlink()



def tools(suite: str) -> Path:
    """Directory with PROGRAMS of `suite` in usr/bin and their libraries in usr/lib."""

    def build(part: Path) -> None:
        with tempfile.TemporaryDirectory() as work:
            archive, whole = Archive(suite, Path(work)), Path(work) / "whole"
            for package in TOOLS:
                archive.unpack(package, whole)
            (part / "usr/bin").mkdir(parents=True)
            (part / "usr/lib").mkdir()
            for path in whole.rglob("*"):
                if path.name in PROGRAMS and path.is_file():
                    shutil.copy2(path, part / "usr/bin")
                elif ".so" in path.name and path.parent.name == "x86_64-linux-gnu":
                    shutil.copy2(path, part / "usr/lib", follow_symlinks=False)

    return cache.entry(f"tools-{suite}-{cache.digest(*TOOLS, *PROGRAMS)}", build)


def add_tools(root: Path, suite: str) -> None:
    """Put PROGRAMS into a root of `suite`."""
    made = tools(suite)
    with cache.locked(made, shared=True):
        shutil.copytree(made / "usr", root / "usr", dirs_exist_ok=True, symlinks=True)
