"""On a real kernel: modules, devices and the boot are untouched by an upgrade from 12 to 13."""

import json
from pathlib import Path

from tests.rig import traces

from .guest import MODULE, Story, upgrade


def ungate(root: Path) -> None:
    """Take the package's gating of stock units out of a root."""
    for path in (root / "usr/lib/systemd/system").glob("*.d/50-issu.conf"):
        path.unlink()


def tell(story: Story) -> str:
    return f"{story.told}\n{story.console[-6000:]}"


def test_kernel_is_untouched() -> None:
    with traces.workspace() as work:
        story = upgrade(work, "bookworm", "trixie")
    told = story.told
    assert told.get("os") == "trixie", tell(story)
    assert told["running"] == "running", tell(story)
    assert told["boot-id-after"] == told["boot-id-before"]
    assert told["modules-after"].split() == told["modules-before"].split()
    assert MODULE not in told["modules-after"].split()
    # A coldplug replays an event for each device; without one there are a few of mounts and loops.
    assert int(told["uevents"]) < int(told["devices"]) // 2
    assert int(told["unmounted"]) == 1
    report = json.loads(told["report"])
    assert report["result"] == "accepted"
    assert "old-root-free" in [finding["id"] for finding in report["findings"]]
    assert "module" in report["continuity"]["read"]
    assert report["continuity"]["differences"] == []


def test_without_the_gating_devices_are_replayed() -> None:
    """Negative control: the same upgrade, with the drop-ins taken out of the new root."""
    with traces.workspace() as work:
        story = upgrade(work, "bookworm", "trixie", in_target=ungate)
    told = story.told
    assert told.get("os") == "trixie", tell(story)
    assert int(told["uevents"]) >= int(told["devices"]) // 2
    assert MODULE in told["modules-after"].split()
    what = [d["name"] for d in json.loads(told["report"])["continuity"]["differences"]]
    assert MODULE in what
