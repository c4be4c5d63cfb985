"""The examples of docs/automation.md, run as they stand there."""

import re
import shlex
from pathlib import Path

from issu_systemd import cli
from tests.rig import sh

from .element import element, write_settings

PAGE = Path("docs/automation.md")
DEVICE = "/dev/sdb2"  # of the page


def block(language: str) -> str:
    """The one block of code in a language."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    [code] = found
    return str(code)


def test_there_and_back(tmp_path: Path) -> None:
    """By Python from 12 to 13 with halt, from outside; by the shell script back with live."""

    def choose(root: Path) -> None:
        write_settings(root, '[switch]\nstrategy = "live"\n')

    with element(tmp_path, "bookworm", "trixie", in_target=choose) as e:
        client = tmp_path / "client.py"
        client.write_text(block("python"))
        bus = f"unix:path=/proc/{e.machine.pid}/root/run/dbus/system_bus_socket"
        env = {"DBUS_SYSTEM_BUS_ADDRESS": bus}
        said = sh.run(["/usr/bin/python3", client, e.target], env=env, timeout=240).stdout
        id = e.ids()[-1]
        assert said == f"{id}: accepted\n"
        assert e.machine.path("/etc/issu-root").read_text() == "trixie\n"
        e.machine.wait_running(60)

        script = e.machine.path("/usr/local/sbin/upgrade")
        script.write_text(block("sh"))
        script.chmod(0o755)
        upgrade = ["/usr/local/sbin/upgrade", e.source]
        done = e.machine.run(upgrade, check=False, timeout=240)
        assert done.returncode == 0, done.stdout + done.stderr
        assert e.machine.path("/etc/issu-root").read_text() == "bookworm\n"
        assert e.report()["strategy"] == "live" and e.report()["id"] != id
        # It is there already, and a device that is none is refused.
        ids = e.ids()
        e.machine.path("/usr/local/sbin/upgrade").write_text(block("sh"))
        e.machine.path("/usr/local/sbin/upgrade").chmod(0o755)
        assert e.machine.run(upgrade).stdout == ""
        upgrade[1] = "/dev/null"
        assert e.machine.run(upgrade, check=False).returncode not in (0, 4)
        assert e.ids() == ids


def test_the_playbook_says_what_the_command_knows() -> None:
    commands = re.findall(r"command: (issu .*)", block("yaml"))
    assert len(commands) == 4
    for command in commands:
        words = shlex.split(command.replace("{{ target }}", DEVICE))
        assert callable(cli.parser().parse_args(words[1:]).act)
