"""One unit of every kind that strategy live must treat in its own way."""

import shutil
from pathlib import Path

from .element import write_settings, write_unit

LIVE = '[switch]\nstrategy = "live"\n'
SLEEP = "/bin/sleep infinity"
USER = "op:x:1500:1500::/home/op:/bin/sh\n"
BUS_NAME = "org.example.Test"
OWNER = f"""
import asyncio
from dbus_next.aio import MessageBus
from dbus_next.constants import BusType
async def main():
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    await bus.request_name("{BUS_NAME}")
    await asyncio.Event().wait()
asyncio.run(main())
"""
POLICY = (
    f"""<busconfig><policy context="default"><allow own="{BUS_NAME}"/></policy></busconfig>\n"""
)

# Restarted: the lines of [Service] of each.
SERVICES = {
    "plain.service": f"ExecStart={SLEEP}\n",
    "notify.service": "Type=notify\nExecStart=/usr/local/sbin/version-echo 7901\n",
    "forking.service": "Type=forking\nExecStart=/bin/sh -c 'sleep infinity &'\n",
    "bus.service": f"Type=dbus\nBusName={BUS_NAME}\nExecStart=/usr/bin/python3 /etc/owner.py\n",
    "private.service": f"PrivateTmp=yes\nProtectSystem=strict\nExecStart={SLEEP}\n",
    "mounts.service": f"PrivateMounts=yes\nPrivateDevices=yes\nExecStart={SLEEP}\n",
    "jail.service": "RootDirectory=/srv/jail\nExecStart=/version-echo 7902\n",
    "dynamic.service": f"DynamicUser=yes\nStateDirectory=dynamic\nExecStart={SLEEP}\n",
    "limited.service": f"Slice=limited.slice\nExecStart={SLEEP}\n",
    "tmpl@a.service": f"ExecStart={SLEEP}\n",
    "tmpl@b.service": f"ExecStart={SLEEP}\n",
}
RESTARTED = (*SERVICES, "stubborn.service", "user@1500.service")
KEPT = ("once.service", "tick.timer", "watch.path", "echo.socket", "limited.slice")
GONE = ("old.service", "old.timer", "old-echo.socket")


def fit_out(root: Path) -> None:
    """Everything that both roots have."""
    write_settings(root, LIVE)
    for name, lines in SERVICES.items():
        write_unit(root, name, f"[Service]\n{lines}")
    write_unit(
        root, "stubborn.service", f"[Unit]\nRefuseManualStop=yes\n[Service]\nExecStart={SLEEP}\n"
    )
    once = "".join(f"Exec{x}=/bin/sh -c 'echo {x} >>/run/once'\n" for x in ("Start", "Stop"))
    write_unit(root, "once.service", f"[Service]\nType=oneshot\nRemainAfterExit=yes\n{once}")
    write_unit(root, "limited.slice", "[Slice]\nMemoryMax=64M\nTasksMax=50\n", wanted_by="")
    write_unit(root, "tick.timer", "[Timer]\nOnActiveSec=1h\n")
    write_unit(root, "tick.service", "[Service]\nExecStart=/bin/true\n", wanted_by="")
    write_unit(root, "watch.path", "[Path]\nPathExists=/run/watched\nUnit=hit.service\n")
    hit = "Type=oneshot\nExecStart=/bin/sh -c 'rm /run/watched; touch /run/hit'\n"
    write_unit(root, "hit.service", f"[Service]\n{hit}", wanted_by="")
    write_unit(root, "echo.socket", "[Socket]\nListenStream=7911\nAccept=yes\n")
    echo = "StandardInput=socket\nExecStart=/bin/cat\n"
    write_unit(root, "echo@.service", f"[Service]\n{echo}", wanted_by="")
    jail = root / "srv/jail"
    jail.mkdir(parents=True)
    shutil.copy(root / "usr/local/sbin/version-echo", jail)
    (root / "etc/owner.py").write_text(OWNER)
    (root / "etc/dbus-1/system.d").mkdir(parents=True, exist_ok=True)
    (root / "etc/dbus-1/system.d/test.conf").write_text(POLICY)
    lingering_user(root)


def lingering_user(root: Path) -> None:
    """A user whose manager runs although nobody is logged in, with a service of its own."""
    for name, line in (
        ("passwd", USER), ("group", "op:x:1500:\n"), ("shadow", "op:!:19000:0:99999:7:::\n"),
    ):  # fmt: skip
        with (root / "etc" / name).open("a") as file:
            file.write(line)
    (root / "var/lib/systemd/linger").mkdir(parents=True, exist_ok=True)
    (root / "var/lib/systemd/linger/op").touch()
    wants = root / "etc/systemd/user/default.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    (wants.parent / "mine.service").write_text(f"[Service]\nExecStart={SLEEP}\n")
    (wants / "mine.service").symlink_to("../mine.service")


def in_source(root: Path) -> None:
    """And what only the old root has."""
    fit_out(root)
    stop = "ExecStop=/usr/bin/touch /run/old-has-stopped\n"
    write_unit(root, "old.service", f"[Service]\nExecStart={SLEEP}\n{stop}")
    write_unit(root, "old.timer", "[Timer]\nOnActiveSec=1h\nUnit=old-tick.service\n")
    write_unit(root, "old-tick.service", "[Service]\nExecStart=/bin/true\n", wanted_by="")
    write_unit(root, "old-echo.socket", "[Socket]\nListenStream=7912\nAccept=yes\n")
    write_unit(root, "old-echo@.service", "[Service]\nExecStart=/bin/true\n", wanted_by="")
    write_unit(root, "changed.service", "[Service]\nExecStart=/bin/sleep 1000001\n")


def in_target(root: Path) -> None:
    """And what only the new root has."""
    fit_out(root)
    write_unit(root, "new.service", f"[Service]\nExecStart={SLEEP}\n")
    write_unit(root, "changed.service", "[Service]\nExecStart=/bin/sleep 1000002\n")
