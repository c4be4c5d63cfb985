"""A guest with two roots that upgrades itself from the first to the second, once."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.container.element import package
from tests.rig import roots

from . import kernel

DATA = Path(__file__).with_name("data")
UNIT = """[Unit]
Description=Scenario of the test

[Service]
Type=exec
ExecStart=/usr/local/sbin/scenario
"""
MODULE = "serio_raw"  # autoloaded by coldplug in this guest, used by nobody
TIMEOUT_SEC = 400.0


@dataclass(frozen=True)
class Story:
    """What the guest told, by key, and its whole console."""

    told: dict[str, str]
    console: str


def fit_out(top: Path, modules: Path) -> None:
    """Put the scenario and the running kernel's modules into a root."""
    shutil.copy(DATA / "scenario", top / "usr/local/sbin/scenario")
    (top / "usr/local/sbin/scenario").chmod(0o755)
    (top / "etc/systemd/system/scenario.service").write_text(UNIT)
    wants = top / "etc/systemd/system/multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "scenario.service").symlink_to("/etc/systemd/system/scenario.service")
    (top / "etc/vm-test-module").write_text(f"{MODULE}\n")
    shutil.copytree(modules, top / "usr/lib/modules", dirs_exist_ok=True, symlinks=True)


def upgrade(
    work: Path, source: str, target: str, *, in_target: Callable[[Path], None] | None = None
) -> Story:
    """Boot `source` in a VM, let it upgrade itself to `target`, and give what it told."""
    top = kernel.tree()

    def equip(root: Path) -> None:
        fit_out(root, top / "lib/modules")

    def equip_target(root: Path) -> None:
        equip(root)
        if in_target:
            in_target(root)

    a = roots.image(roots.installed(source, package()), work / "a.img", customize=equip)
    b = roots.image(roots.installed(target, package()), work / "b.img", customize=equip_target)
    return run(kernel.image(top), a, b)


def run(image: Path, first: Path, second: Path) -> Story:
    """Run the guest until it powers off; software emulation where there is no hardware's."""
    flags = Path("/proc/cpuinfo").read_text().split()
    kvm = [] if {"vmx", "svm"} & set(flags) else ["--disable-kvm"]
    argv = [
        "vng", "--run", image, "--systemd", "--root-disk", first, "--root-fstype", "ext4", "--rw",
        "--disk", second, "--force-9p", "--memory", "1G", "--cpus", "2", "--verbose", *kvm,
    ]  # fmt: skip
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        argv, env={**os.environ, "PATH": path}, stdin=subprocess.DEVNULL, text=True,
        errors="replace", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT_SEC,
        check=False,
    )  # fmt: skip
    lines = (line.strip() for line in done.stdout.splitlines())
    told = dict(line[2:].partition(" ")[::2] for line in lines if line.startswith("@@"))
    return Story(told, done.stdout)
