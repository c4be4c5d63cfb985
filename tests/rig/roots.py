"""Debian roots: bootstrapped, fitted out with our package and test services, made into images."""

import os
import shutil
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from . import cache as store
from . import sh
from .loop import mounted

SUITES = ("bookworm", "trixie")
PACKAGES = (
    *("systemd", "systemd-sysv", "libpam-systemd", "dbus", "udev", "kmod", "procps", "netbase"),
    *("iproute2", "nftables", "ifupdown", "e2fsprogs"),
    *("python3-minimal", "python3-pystemd", "python3-dbus-next", "python3-pyudev"),
    *("nginx-light", "dnsmasq", "openssh-server"),
)
OPTIONS = (
    "--variant=minbase",
    '--aptopt=Acquire::Languages "none"',
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
)
# A mirror may be older than an archive that changes every day allows; it is signed all the same.
MOVING = '--aptopt=Acquire::Check-Valid-Until "false"'
DATA = Path(__file__).with_name("data")
DISABLED = ("ssh.service", "apt-daily.timer", "apt-daily-upgrade.timer", "getty@tty1.service")
MASKED = ("console-getty.service", "serial-getty@.service", "container-getty@.service")
MKE2FS = ("mke2fs", "-q", "-t", "ext4", "-O", "metadata_csum_seed", "-E", "lazy_itable_init=0")
SFDISK = ("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel")  # and so without sync(2)
SECTOR = 512  # bytes
FIRST_PARTITION = 2048  # sectors


@cache
def mirror() -> str:
    """Base address of the Debian archive that this machine's own apt uses."""
    targets = sh.output(["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE) $(COMPONENT)"])
    for line in targets.splitlines():
        site, release, component = line.split()
        if component == "main" and release in SUITES:
            return site
    raise LookupError("apt on this machine has no Debian 'main' archive: see sources.list(5)")


def base(suite: str, more: Sequence[str] = ()) -> Path:
    """Tar archive of a bare root of `suite` with PACKAGES and `more`, made if not in the cache."""
    packages = (*PACKAGES, *more)

    def build(part: Path) -> None:
        include = f"--include={','.join(packages)}"
        late = [] if suite in SUITES else [MOVING]
        argv = ["mmdebstrap", "--format=tar", *OPTIONS, *late, include, suite, str(part)]
        sh.run([*argv, f"deb {mirror()} {suite} main"], timeout=540)

    return store.entry(f"base-{suite}-{store.digest(*OPTIONS, *packages)}.tar", build)


def version_echo() -> Path:
    """The statically linked version-echo program."""
    source = DATA / "version-echo.c"

    def build(part: Path) -> None:
        sh.run(["gcc", "-static", "-O2", "-Wall", "-Werror", "-Wl,-s", source, "-o", part])

    return store.entry(f"version-echo-{store.digest(source.read_bytes())}", build)


def installed(suite: str, deb: Path | None = None, more: Sequence[str] = ()) -> Path:
    """Directory with a root of `suite`, the test services and, if given, our package.

    `more` are further Debian packages. Never change it: `image` copies it. The cache key is
    everything that goes in.
    """
    tar = base(suite, more)
    echo = version_echo()
    data = [p.read_bytes() for p in sorted(DATA.iterdir())]
    what = deb.read_bytes() if deb else b""
    key = store.digest(tar.name, what, *data, *DISABLED, *MASKED, Path(__file__).read_bytes())

    def build(part: Path) -> None:
        part.mkdir()
        with store.locked(tar, shared=True):
            sh.run(["tar", "-C", part, "--numeric-owner", "--xattrs", "-xpf", tar])
        if deb:
            _install(part, deb)
        _fit_out(part, suite, echo)

    return store.entry(f"tree-{suite}-{key}", build)


def image(
    tree: Path,
    dest: Path,
    size: str = "2G",
    *,
    partition_table: bool = False,
    customize: Callable[[Path], None] | None = None,
) -> Path:
    """Sparse disk image `dest` with `tree` as ext4, whole or in the one partition of a GPT.

    `size` is that of the file system as mke2fs takes it. Every image has a UUID of its own.
    `customize` is called with the directory where the new file system is mounted.
    """

    def build(part: Path) -> None:
        with store.locked(tree, shared=True):
            sh.run([*MKE2FS, "-d", tree, part, size])

    if tree.parent == store.directory():
        fresh = store.entry(f"image-{tree.name}.{size}.ext4", build)
        store.copy(fresh, dest)
    else:
        sh.run([*MKE2FS, "-d", tree, dest, size])
    sh.run(["tune2fs", "-U", "random", dest])
    if customize:
        with mounted(dest) as top:
            customize(top)
    return disk(dest, [dest]) if partition_table else dest


def disk(dest: Path, file_systems: list[Path]) -> Path:
    """Disk image `dest` with a GPT and one partition for each file system image, in order.

    The images are used up.
    """
    part = dest.with_name(f"{dest.name}.part")
    end = FIRST_PARTITION
    table = ["label: gpt"]
    starts: list[int] = []
    for source in file_systems:
        sectors = source.stat().st_size // SECTOR
        table.append(f"start={end}, size={sectors}, type=linux")
        starts.append(end)
        end += -(-sectors // FIRST_PARTITION) * FIRST_PARTITION
    with part.open("wb") as file:
        os.truncate(file.fileno(), (end + FIRST_PARTITION) * SECTOR)
    sh.run([*SFDISK, part], stdin="\n".join(table) + "\n")
    for source, start in zip(file_systems, starts, strict=True):
        _graft(source, part, start * SECTOR)
        source.unlink()
    return part.rename(dest)


def _graft(source: Path, dest: Path, offset: int) -> None:
    """Copy the data of `source`, not its holes, to `offset` bytes and more in `dest`."""
    size = source.stat().st_size
    with source.open("rb") as reader, dest.open("r+b") as writer:
        end = 0
        while end < size:
            try:
                begin = os.lseek(reader.fileno(), end, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole is left
                return
            end = os.lseek(reader.fileno(), begin, os.SEEK_HOLE)
            os.lseek(writer.fileno(), offset + begin, os.SEEK_SET)
            while begin < end:
                begin += os.sendfile(writer.fileno(), reader.fileno(), begin, end - begin)


def _install(tree: Path, deb: Path) -> None:
    """dpkg -i in the tree, with a /proc and a PID namespace of its own."""
    inside = tree / "package.deb"
    shutil.copy(deb, inside)
    apart = ["unshare", "--mount", "--fork", "--pid", "--kill-child", f"--mount-proc={tree}/proc"]
    sh.run([*apart, "chroot", tree, "dpkg", "-i", f"/{inside.name}"])
    inside.unlink()


def _fit_out(tree: Path, suite: str, echo: Path) -> None:
    """Make the root an element under test: services, names, nothing that fails to start."""
    system = tree / "etc/systemd/system"
    store.copy(echo, tree / "usr/local/sbin/version-echo").chmod(0o755)
    shutil.copy(DATA / "version-echo.service", system)
    shutil.copy(DATA / "dnsmasq.conf", tree / "etc/dnsmasq.d/test.conf")
    (tree / "etc/nginx/conf.d/test.conf").write_text("access_log off;\n")
    (tree / "etc/issu-root").write_text(f"{suite}\n")
    (tree / "etc/hostname").write_text("element\n")
    (tree / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 element\n")
    for name in ("etc/fstab", "etc/machine-id", "etc/resolv.conf"):
        (tree / name).unlink(missing_ok=True)
        (tree / name).touch()
    at_root = ["systemctl", f"--root={tree}", "--quiet"]
    sh.run([*at_root, "enable", "version-echo.service", "nginx.service", "dnsmasq.service"])
    sh.run([*at_root, "disable", *DISABLED])
    sh.run([*at_root, "mask", *MASKED])
