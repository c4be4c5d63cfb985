"""The programs for boot loaders for real: file systems, and files as the boot loaders have them.

What they did is read back with the boot loader's own tool, where it has one.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

DATA = Path(__file__).parents[2] / "data"
OLD = "11111111-1111-1111-1111-111111111111"
NEW = "22222222-2222-2222-2222-222222222222"
OTHER = "33333333-3333-3333-3333-333333333333"
# As grub-mkconfig writes it with GRUB_DEFAULT=saved, with os-prober; the old root's entry is first.
GRUB = """\
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
else
   set default="${saved_entry}"
fi
function load_video {
  insmod all_video
}
menuentry 'Debian GNU/Linux' --class debian --class os $menuentry_id_option 'gnulinux-simple-OLD' {
	load_video
	if [ x$grub_platform = xxen ]; then insmod xzio; fi
	search --no-floppy --fs-uuid --set=root OLD
	linux	/boot/vmlinuz-6.1.0 root=UUID=OLD ro  quiet
	initrd	/boot/initrd.img-6.1.0
}
submenu 'Advanced options for Debian' $menuentry_id_option 'gnulinux-advanced-OLD' {
	menuentry 'Debian, with Linux 6.1.0' $menuentry_id_option 'gnulinux-6.1.0-advanced-OLD' {
		linux	/boot/vmlinuz-6.1.0 root=UUID=OLD ro  quiet
	}
}
submenu 'Others' --id others {
	menuentry "Only (here)" --class debian {
		linux	/boot/vmlinuz-6.12 root=LABEL=third ro
	}
	menuentry 'Debian 13' --class debian $menuentry_id_option 'osprober-simple-NEW' {
		linux	/boot/vmlinuz-6.12 root=UUID=NEW ro
	}
}
menuentry 'Set up' { fwsetup }
"""
EXTLINUX = """\
# made by hand
DEFAULT old
TIMEOUT 50

LABEL old
    MENU LABEL Debian 12
    KERNEL /vmlinuz-6.1
    APPEND ro root=UUID=OLD quiet
LABEL new
    MENU LABEL Debian 13
    KERNEL /vmlinuz-6.12
    append ro root=UUID=NEW quiet
"""


def named(text: str) -> str:
    return text.replace("OLD", OLD).replace("NEW", NEW)


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """File systems with the UUIDs above; the first two have the same label."""
    place = tmp_path_factory.mktemp("disks")
    found = {}
    for uuid, label in ((OLD, "root"), (NEW, "root"), (OTHER, "third")):
        found[uuid] = place / uuid
        make = ["mke2fs", "-q", "-t", "ext4", "-U", uuid, "-L", label, found[uuid], "2M"]
        subprocess.run(make, check=True)
    return found


class Loader:
    """A boot partition, and the program that is to change it."""

    def __init__(self, name: str, boot: Path, disks: dict[str, Path]) -> None:
        self.name, self.boot, self.disks = name, boot, disks

    def run(
        self, target: str, source: str = OLD, asked: str = "", place: str = "accept.d"
    ) -> tuple[int, str]:
        """End an upgrade on the root `target`; exit status and what it said."""
        env = {
            "PATH": os.environ["PATH"], "ISSU_BOOT_DIR": str(self.boot),
            "ISSU_ESP_DIR": str(self.boot), "ISSU_BOOT_LOADER": asked or self.name,
            "ISSU_SOURCE": str(self.disks[source]), "ISSU_TARGET": str(self.disks[target]),
        }  # fmt: skip
        program = DATA / place / f"50-{self.name}"
        done = subprocess.run(
            [program], env=env, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return done.returncode, done.stdout.strip()

    def files(self) -> dict[str, tuple[int, bytes]]:
        """Every file there: its inode, which a replaced one has anew, and what is in it."""
        every = [path for path in self.boot.rglob("*") if path.is_file()]
        return {str(path): (path.stat().st_ino, path.read_bytes()) for path in every}

    def write(self, name: str, text: str) -> Path:
        path = self.boot / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(named(text))
        return path


@pytest.fixture(params=["grub", "extlinux", "systemd-boot"])
def loader(request: pytest.FixtureRequest, tmp_path: Path, disks: dict[str, Path]) -> Loader:
    """Each of them, on a boot partition that starts the old root."""
    made = Loader(request.param, tmp_path, disks)
    if made.name == "grub":
        config = made.write("grub/grub.cfg", GRUB)
        subprocess.run(["grub-script-check", config], check=True)
        environment = tmp_path / "grub/grubenv"
        subprocess.run(["grub-editenv", environment, "create"], check=True)
        first = [f"saved_entry=gnulinux-simple-{OLD}", "next_entry=once", "mine=1"]
        subprocess.run(["grub-editenv", environment, "set", *first], check=True)
    elif made.name == "extlinux":
        made.write("extlinux/extlinux.conf", EXTLINUX)
    else:
        made.write("loader/loader.conf", "timeout 3\ndefault old.conf\n")
        made.write("EFI/BOOT/placeholder", "")
        made.write("vmlinuz", "")
        for name, uuid in (("old", "OLD"), ("new-6.9", "NEW"), ("new-6.12+3-1", "NEW")):
            entry = f"title {name}\nlinux /vmlinuz\noptions ro\noptions root=UUID={uuid} quiet\n"
            made.write(f"loader/entries/{name}.conf", entry)
    return made


def chosen(loader: Loader) -> str:
    """What the next boot starts, as the boot loader's own tool says, or its file."""
    if loader.name == "grub":
        argv = ["grub-editenv", loader.boot / "grub/grubenv", "list"]
        listed = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
        pairs = dict(line.split("=", 1) for line in listed.splitlines())
        assert pairs["mine"] == "1"  # what else is in it stays
        return pairs.get("next_entry", pairs["saved_entry"])
    if loader.name == "extlinux":
        lines = (loader.boot / "extlinux/extlinux.conf").read_text().splitlines()
        (default,) = [line.split()[1] for line in lines if line.startswith("DEFAULT")]
        return default
    # It wants the root of a mount.
    script = 'mount --bind "$0" "$0"; exec bootctl --esp-path="$0" --no-pager list'
    argv = ["unshare", "--map-root-user", "--mount", "sh", "-euc", script, loader.boot]
    env = {**os.environ, "SYSTEMD_RELAX_ESP_CHECKS": "1"}
    listed = subprocess.run(argv, check=True, capture_output=True, text=True, env=env).stdout
    (default,) = [entry for entry in listed.split("\n\n") if "(default)" in entry]
    return re.findall(r"^ *id: (\S+)", default, re.MULTILINE)[0]


BEFORE = {"grub": "once", "extlinux": "old", "systemd-boot": "old.conf"}
AFTER = {"grub": f"others>osprober-simple-{NEW}", "extlinux": "new",
         "systemd-boot": "new-6.12.conf"}  # fmt: skip
BACK = {"grub": f"gnulinux-simple-{OLD}", "extlinux": "old", "systemd-boot": "old.conf"}


def test_the_accepted_root_is_what_the_next_boot_starts(loader: Loader) -> None:
    assert chosen(loader) == BEFORE[loader.name]
    status, said = loader.run(NEW)
    assert (status, said) == (0, f"{loader.name}: the next boot starts {AFTER[loader.name]}")
    assert chosen(loader) == AFTER[loader.name]

    before = loader.files()
    status, said = loader.run(NEW)  # once more changes nothing
    assert status == 0
    assert "already" in said
    assert loader.files() == before

    assert loader.run(OLD, source=NEW, place="rollback.d")[0] == 0  # it is taken back
    assert chosen(loader) == BACK[loader.name]


def test_only_one_file_is_changed_and_it_is_replaced(loader: Loader) -> None:
    before = loader.files()
    assert loader.run(NEW)[0] == 0
    after = loader.files()
    assert before.keys() == after.keys()
    changed = [path for path in before if before[path] != after[path]]
    assert len(changed) == 1
    assert before[changed[0]][0] != after[changed[0]][0]  # never half of one


def test_a_root_without_an_entry_changes_nothing(loader: Loader) -> None:
    if loader.name == "grub":  # it has one, for the next test
        config = loader.boot / "grub/grub.cfg"
        config.write_text(config.read_text().replace("LABEL=third", "LABEL=fourth"))
    before = loader.files()
    status, said = loader.run(OTHER)
    assert status == 1
    assert f"root= of {loader.disks[OTHER]}" in said
    assert said.endswith("the next boot starts what it did before")
    assert loader.files() == before


@pytest.mark.parametrize("place", ["accept.d", "rollback.d"])
@pytest.mark.parametrize("asked", ["none", "another"])
def test_it_acts_only_if_it_is_asked_for(loader: Loader, asked: str, place: str) -> None:
    before = loader.files()
    assert loader.run(NEW, asked=asked, place=place) == (0, "")
    assert loader.files() == before


def test_a_boot_partition_that_is_not_there(loader: Loader) -> None:
    loader.boot = loader.boot / "nowhere"
    status, said = loader.run(NEW)
    assert status == 1
    assert str(loader.boot) in said


def refuses(loader: Loader, words: str) -> None:
    """It fails, says why, and changes nothing."""
    before = loader.files()
    status, said = loader.run(NEW)
    assert status == 1
    assert words in said
    assert loader.files() == before


# --- each one's own -----------------------------------------------------------------------------


@pytest.mark.parametrize("loader", ["grub"], indirect=True)
def test_grub_that_does_not_heed_saved_entry(loader: Loader) -> None:
    config = loader.boot / "grub/grub.cfg"
    config.write_text(config.read_text().replace('"${saved_entry}"', '"0"'))
    refuses(loader, "GRUB_DEFAULT=saved")


@pytest.mark.parametrize("loader", ["grub"], indirect=True)
def test_grub_without_an_environment_gets_one_and_an_entry_without_an_id_its_title(
    loader: Loader,
) -> None:
    (loader.boot / "grub/grubenv").unlink()
    assert loader.run(OTHER)[0] == 0
    argv = ["grub-editenv", loader.boot / "grub/grubenv", "list"]
    listed = subprocess.run(argv, check=True, capture_output=True, text=True).stdout
    assert listed == "saved_entry=others>Only (here)\n"


@pytest.mark.parametrize("loader", ["extlinux"], indirect=True)
def test_extlinux_without_a_default_gets_one(loader: Loader) -> None:
    config = loader.boot / "extlinux/extlinux.conf"
    text = config.read_text().replace("DEFAULT old\n", "")
    config.write_text(text)
    assert loader.run(NEW)[0] == 0
    assert config.read_text() == f"DEFAULT new\n{text}"


@pytest.mark.parametrize("loader", ["extlinux"], indirect=True)
def test_extlinux_with_what_wins_over_its_default(loader: Loader) -> None:
    config = loader.boot / "extlinux/extlinux.conf"
    config.write_text(config.read_text() + "ONTIMEOUT old\n")
    refuses(loader, "ONTIMEOUT")


@pytest.mark.parametrize("loader", ["systemd-boot"], indirect=True)
def test_systemd_boot_without_settings_gets_them(loader: Loader) -> None:
    (loader.boot / "loader/loader.conf").unlink()
    assert loader.run(NEW)[0] == 0
    assert chosen(loader) == "new-6.12.conf"


# --- the names of a root ------------------------------------------------------------------------


def names(*devices: Path) -> set[str]:
    argv = [DATA / "root-names", *devices]
    return set(subprocess.run(argv, check=True, capture_output=True, text=True).stdout.splitlines())


def test_a_root_goes_by_every_name(disks: dict[str, Path], tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(disks[NEW])
    assert names(link) == {
        str(link), str(disks[NEW]), f"UUID={NEW}", f"/dev/disk/by-uuid/{NEW}",
        "LABEL=root", "/dev/disk/by-label/root",
    }  # fmt: skip


def test_a_name_that_the_other_root_has_too_is_none(disks: dict[str, Path]) -> None:
    only = {str(disks[NEW]), f"UUID={NEW}", f"/dev/disk/by-uuid/{NEW}"}
    assert names(disks[NEW], disks[OLD]) == only
    assert "LABEL=root" in names(disks[NEW], disks[OTHER])
