"""What is removed from a new root before it is used again."""

from __future__ import annotations

from pathlib import Path

from issu_systemd import stage

ID = "d0f1a3c5"


def test_private_directories_of_services_that_ran_there_are_removed(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    for top in ("tmp", "var/tmp"):
        inside = root / top / f"systemd-private-{ID}-dbus.service-x" / "tmp"
        inside.mkdir(parents=True)
        (inside / "file").touch()
        (root / top / "mine").mkdir()
        (root / top / "systemd-private-file").touch()
    kept = other / f"systemd-private-{ID}-nginx.service-y"
    kept.mkdir(parents=True)
    (root / "tmp/systemd-private-link").symlink_to(kept)
    stage.forget_private(root)
    left = sorted(str(path.relative_to(root)) for path in root.rglob("*") if "tmp/" in str(path))
    names = ["mine", "systemd-private-file", "systemd-private-link"]
    want = [f"tmp/{name}" for name in names] + [f"var/tmp/{name}" for name in names[:2]]
    assert [path for path in left if path.startswith(("tmp/", "var/tmp/"))] == want
    assert kept.is_dir()


def test_a_link_does_not_lead_out_of_the_root(tmp_path: Path) -> None:
    """Of two roots one is running: its services keep what they have."""
    running = tmp_path / "var/tmp" / f"systemd-private-{ID}-nginx.service-y"
    running.mkdir(parents=True)
    root = tmp_path / "root"
    root.mkdir()
    (root / "tmp").symlink_to(tmp_path / "var/tmp")
    (root / "var").symlink_to("var")  # in circles
    stage.forget_private(root)
    assert running.is_dir()


def test_a_root_without_such_directories(tmp_path: Path) -> None:
    stage.forget_private(tmp_path)
    assert list(tmp_path.iterdir()) == []
