"""No evidence that cannot be read ends an upgrade: it is told."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from issu_systemd import sources
from issu_systemd.evidence import Facts, Tree
from issu_systemd.systemd import Unit


def fails(*_: object) -> int:
    raise KeyError("odd")


def test_one_that_fails_does_not_hold_up_the_others() -> None:
    values, unread = sources.read_all({"a": lambda x: x, "b_c": fails, "d": lambda x: x + 1}, 1)
    assert values == {"a": 1, "d": 2}
    assert unread == ["b c: 'odd'"]


def test_what_is_not_expected_at_all_is_not_swallowed() -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sources.read_all({"a": interrupted})


def test_every_source_is_of_a_fact() -> None:
    of_machine, of_tree = ({f.name for f in fields(kind)} for kind in (Facts, Tree))
    assert {*sources.MACHINE, *sources.PLANNED} <= of_machine
    assert {*sources.TARGET, *sources.SHARED} <= of_tree


@pytest.mark.parametrize("active", ["active", "inactive"])
def test_only_what_blocks_a_shutdown_counts(
    monkeypatch: pytest.MonkeyPatch, active: str
) -> None:
    class Manager:
        def units(self) -> list[Unit]:
            return [Unit("systemd-logind.service", "loaded", active, "x")]

    locks = [
        ("shutdown:sleep", "backup", "it runs", "block"), ("sleep", "film", "w", "block"),
        ("shutdown", "apt", "w", "delay"), ("handle-lid-switch", "x", "w", "block"),
    ]  # fmt: skip
    monkeypatch.setattr(sources, "inhibitors", lambda: locks)
    manager: Any = Manager()
    assert sources.blocking(manager) == (("backup (it runs)",) if active == "active" else ())
