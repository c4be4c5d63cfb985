"""Power is cut: the machine boots from the same disk, and says what became of the upgrade."""

import json
from pathlib import Path
from typing import Any

from .element import GATE, Element, change, element, gate_first_boot, wait_blocked


def status(e: Element) -> str:
    return e.machine.run(["issu", "status"]).stdout


def report(e: Element, id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(e.machine.run(["issu", "report", "--json", id]).stdout)
    return found


def cut(e: Element, device: str) -> None:
    """Cut the power, and boot as a boot loader does that knows one root."""
    e.machine.cut()
    e.machine.boot(Path(device))


def test_power_is_cut(tmp_path: Path) -> None:
    with element(tmp_path, in_target=gate_first_boot) as e:
        e.machine.popen(["systemctl", "start", f"issu@{e.target}"])
        wait_blocked(e.machine, GATE)
        assert "stage, going to" in status(e)  # control
        [word] = e.machine.path("/var/lib/issu/history").iterdir()
        cut(e, e.source)

        assert f"{word.stem}: failed" in status(e)
        told = report(e, word.stem)
        assert told["error"] == (
            "power was lost, or the kernel restarted, before the upgrade had ended, before a "
            f"service was stopped; the machine came up on {e.source}, the old root"
        )
        assert e.ids() == []  # it is none of its own yet
        assert [*e.machine.path("/run/issu").iterdir()] == []
        assert e.machine.path("/sysroot").is_dir()

        # The next one tidies up, and takes the report along.
        change(e.target, f"rm {GATE[1:]}")
        e.start()
        assert e.wait_end({word.stem})["result"] == "accepted"
        assert e.machine.path("/etc/issu-root").read_text() == "trixie\n"
        first, second = e.ids()
        assert (first, report(e, first)) == (word.stem, told)

        # The old root was told of it, and says that it was left.
        cut(e, e.source)
        assert e.ids() == [first, second]
        assert not list(e.machine.path("/var/lib/issu/history").glob("*.unfinished"))
        assert not e.machine.path("/sysroot").exists()
        said = status(e)
        assert f"{second}: accepted" in said
        assert f"the machine has restarted since, and runs {e.source}, the root" in said
