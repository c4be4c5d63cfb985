"""The program for systemd-boot on a machine with EFI variables, which bootctl sets."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig import traces

from . import network
from .guest import Guest, guest
from .kernel import Archive

SUITE = "bookworm"
PROGRAM = "/usr/lib/issu/accept.d/50-systemd-boot"
VARIABLES = "/sys/firmware/efi/efivars"
LOADER = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"  # the vendor of systemd-boot's variables
# A machine that systemd-boot has started says so in LoaderInfo; the entries are on a file system of
# their own, which is none of FAT's here.
SET_UP = f"""
mountpoint -q {VARIABLES} || mount -t efivarfs efivarfs {VARIABLES}
printf '\\007\\0\\0\\0s\\0d\\0\\0\\0' >{VARIABLES}/LoaderInfo-{LOADER}
mkdir -p /efi
mount -t tmpfs tmpfs /efi
mkdir -p /efi/EFI /efi/loader/entries
for disk in vda vdb; do
    uuid=$(blkid --probe --output value --match-tag UUID /dev/$disk)
    printf 'title %s\\nlinux /vmlinuz\\noptions root=UUID=%s\\n' $disk $uuid \\
        >/efi/loader/entries/$disk.conf
done
touch /efi/vmlinuz
"""
ACCEPT = (
    "export SYSTEMD_RELAX_ESP_CHECKS=1 ISSU_BOOT_LOADER=systemd-boot "
    f"ISSU_SOURCE=/dev/{{source}} ISSU_TARGET=/dev/{{target}}; {PROGRAM}"
)
# It has no lseek(2).
CHOSEN = f"cat {VARIABLES}/LoaderEntryDefault-{LOADER} | tail -c +5 | tr -d '\\0'"
FILES = "find /efi -type f -exec sha256sum {} + | sort"


def bootctl(top: Path) -> None:
    """Give the root the program bootctl of its suite."""
    with tempfile.TemporaryDirectory() as work:
        Archive(SUITE, Path(work)).unpack("systemd-boot", Path(work) / "tree")
        (top / "usr/bin/bootctl").write_bytes((Path(work) / "tree/usr/bin/bootctl").read_bytes())
    (top / "usr/bin/bootctl").chmod(0o755)


@pytest.fixture(scope="module")
def g() -> Iterator[Guest]:
    """A guest that EFI firmware has started."""
    with (
        traces.workspace() as work,
        guest(
            work, (SUITE, SUITE), kernel_of=SUITE, customize=[network.ifupdown, bootctl],
            options="-bios /usr/share/ovmf/OVMF.fd",
        ) as made,
    ):  # fmt: skip
        made.run(SET_UP)
        yield made


def test_bootctl_sets_the_default(g: Guest) -> None:
    files = g.run(FILES)
    for source, target in (("vda", "vdb"), ("vdb", "vda"), ("vdb", "vda")):
        said = g.run(ACCEPT.format(source=source, target=target))
        assert said.strip().endswith(f"systemd-boot: the next boot starts {target}.conf")
        assert g.run(CHOSEN).strip() == f"{target}.conf"
        listed = g.run("SYSTEMD_RELAX_ESP_CHECKS=1 bootctl --no-pager list")
        (default,) = [entry for entry in listed.split("\n\n") if "(default)" in entry]
        assert f"id: {target}.conf" in default
    assert g.run(FILES) == files  # and nothing else


def test_without_an_entry_the_default_stays(g: Guest) -> None:
    before = g.run(CHOSEN)
    g.run("rm /efi/loader/entries/vdb.conf")
    said = g.run(f"{ACCEPT.format(source='vda', target='vdb')}; echo $?", check=False)
    assert "no entry in" in said
    assert said.strip().endswith("1")
    assert g.run(CHOSEN) == before == "vda.conf"
