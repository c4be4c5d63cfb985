"""The contract is read as it is written."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from issu_systemd import contract, methods
from issu_systemd.errors import IssuError

PATH = Path(__file__).parents[2] / "data/dbus/org.issu1.xml"
POLICY = PATH.parents[1] / "polkit/org.issu1.policy"


def test_interfaces() -> None:
    found = contract.read(PATH)
    assert found.keys() == {contract.MANAGER, contract.JOB}
    manager, job = found[contract.MANAGER], found[contract.JOB]
    assert manager.methods["Start"] == contract.Method("sa{sv}", "so")
    assert manager.methods["Accept"] == contract.Method("", "")
    assert manager.signals["JobRemoved"] == "sos"
    assert manager.properties["Progress"] == "(isi)"
    assert manager.constant == {"Version"}
    assert job.constant == {"Id", "Uid"}


def test_every_method_of_the_contract_is_there_and_no_other() -> None:
    found = contract.read(PATH)
    assert methods.METHODS.keys() == found[contract.MANAGER].methods.keys()
    assert found[contract.JOB].methods.keys() == {"Cancel"}


def test_a_contract_that_is_missing_or_broken_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("<node>")
    for name in ("x", "y"):
        with pytest.raises(IssuError, match=f"/{name}"):
            contract.read(tmp_path / name)


def test_paths() -> None:
    assert contract.job_id(contract.job_path("1")) == "1"
    for path in ("/", "/org/issu1", "/org/issu1/job", "/org/issu1/job/", "/org/issu1/job/1/2"):
        assert contract.job_id(path) == ""


def test_polkit_has_an_action_for_each_right_that_is_asked_for() -> None:
    """And only looking is free."""
    source = (Path(methods.__file__)).read_text()
    actions = {a.attrib["id"]: a for a in ET.parse(POLICY).iter("action")}
    rights = ("check", "start", "start-forced", "accept", "rollback", "cancel", "inhibit")
    assert actions.keys() == {f"org.issu1.{right}" for right in rights}
    for right in rights:
        assert f'"{right}"' in source
        defaults = {e.text for e in actions[f"org.issu1.{right}"].find("defaults") or ()}
        assert defaults == {"yes" if right == "check" else "auth_admin"}
        for words in ("description", "message"):
            assert actions[f"org.issu1.{right}"].findtext(words)
