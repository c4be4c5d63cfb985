"""What strategy live must account for besides units."""

from __future__ import annotations

from pathlib import Path

import pytest

from issu_systemd import mounts, survey
from issu_systemd.mounts import Mount
from issu_systemd.newroot import Offer
from issu_systemd.settings import Settings

STAGE = Path("/sysroot")


def at(point: str, source: str = "/dev/sdc1", fstype: str = "ext4") -> Mount:
    return Mount(1, "/", point, frozenset(), fstype, source, read_only=False)


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> list[Mount]:
    """What is mounted, to be filled; the kernel's views are there already."""
    found = [at("/"), at("/proc", "proc", "proc"), at("/run/user/0"), at("/sysroot"),
             at("/sysroot/boot")]  # fmt: skip
    monkeypatch.setattr(mounts, "mounts", lambda: found)
    return found


@pytest.mark.parametrize(
    ("mount", "offered", "carried", "stray", "goes"),
    [
        (at("/srv"), {}, (), True, False),
        (at("/srv/inner"), {}, ("/srv",), False, False),
        (at("/srv"), {"/srv": "/dev/sdd1"}, (), False, False),  # mounted anew
        (at("/srv"), {"/srv": "/dev/sdc1"}, (), False, True),
        (at("/tmp", "tmpfs", "tmpfs"), {}, (), False, True),  # it is nowhere else
        (at("/srv2"), {"/srv": "/dev/sdc1"}, (), True, False),
    ],
)
def test_every_mount_is_accounted_for(
    there: list[Mount],
    mount: Mount,
    offered: dict[str, str],
    carried: tuple[str, ...],
    *,
    stray: bool,
    goes: bool,
) -> None:
    there.append(mount)
    offer = Offer(mounts=offered)
    assert (survey.stray_mounts(offer, carried, STAGE) == (mount.point,)) is stray
    assert (survey.both_have(offer, STAGE) == [mount.point]) is goes


def test_nothing_else_is_of_concern(there: list[Mount]) -> None:
    assert survey.stray_mounts(Offer(), (), STAGE) == ()
    assert survey.both_have(Offer(), STAGE) == []


def test_gated(tmp_path: Path) -> None:
    place = tmp_path / "usr/lib/systemd/system/systemd-sysctl.service.d"
    place.mkdir(parents=True)
    assert survey.gated(tmp_path) == []
    (place / "50-issu.conf").touch()
    assert survey.gated(tmp_path) == ["systemd-sysctl.service"]


# --- [arrive] of both roots ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs", "says", "lifts"),
    [
        (True, False, "issu 0.3.0", True),
        (False, True, "issu 0.3.0", True),
        (False, False, "issu 0.3.0", False),
        (True, True, "issu 0.2.9", False),  # it would not take the drop-in away
        (True, True, "", False),
        (True, True, "issu 1.0", True),
    ],
)
def test_the_kernels_settings(*, ours: bool, theirs: bool, says: str, lifts: bool) -> None:
    found = survey.wanted(Settings(sysctl=ours), Settings(sysctl=theirs), says)
    assert found.lifted == (["systemd-sysctl.service"] if lifts else [])


def test_what_is_skipped_is_what_either_root_says() -> None:
    ours, theirs = Settings(skip=("b.service", "c.service")), Settings(skip=("a.service",))
    assert survey.wanted(ours, theirs, "").skip == ["a.service", "b.service", "c.service"]
