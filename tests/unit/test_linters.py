"""The linters, and the rules of this repository that no linter knows; each is seen to fail too."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from issu_systemd import __version__

ROOT = Path(__file__).parents[2]
NOT_OURS = {".git", ".venv", "dist", "__pycache__"}
INSTALLED_UNITS = Path("usr/lib/systemd/system")
PROGRAMS = {
    "/usr/bin/issu": ROOT / "issu_systemd/glance.py",
    "/usr/lib/issu/restore": ROOT / "data/restore",
}
LONGEST_MODULE = 300


def call(
    *argv: str | Path, stdin: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command in the repository; standard error comes with standard output."""
    return subprocess.run(
        argv,
        input=stdin,
        cwd=ROOT,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )


def python(*argv: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return call(sys.executable, "-m", *argv, stdin=stdin)


def expect_clean(result: subprocess.CompletedProcess[str]) -> None:
    if result.returncode:
        pytest.fail(result.stdout, pytrace=False)


def repository_files() -> Iterator[Path]:
    for top, directories, files in os.walk(ROOT):
        directories[:] = [d for d in directories if d not in NOT_OURS and not d.endswith("_cache")]
        yield from (Path(top, name) for name in files)


def text_of(path: Path) -> str:
    return path.read_text(errors="replace")


# --- Python -------------------------------------------------------------------------------------


def test_ruff() -> None:
    expect_clean(python("ruff", "check", "--output-format=concise", "."))


def test_ruff_finds_an_unused_import() -> None:
    assert "F401" in python("ruff", "check", "-", stdin="import os\n").stdout


def test_mypy() -> None:
    expect_clean(python("mypy", "issu_systemd", "tests/rig"))


def test_mypy_is_strict(tmp_path: Path) -> None:
    (tmp_path / "loose.py").write_text("def f(x):\n    return x\n")
    result = python("mypy", "--config-file", ROOT / "pyproject.toml", tmp_path / "loose.py")
    assert "[no-untyped-def]" in result.stdout


def test_modules_are_short() -> None:
    lines = {
        path.relative_to(ROOT): len(text_of(path).splitlines())
        for directory in ("issu_systemd", "tests/rig")
        for path in (ROOT / directory).glob("*.py")
    }
    assert lines
    assert {path: n for path, n in lines.items() if n > LONGEST_MODULE} == {}


# --- shell --------------------------------------------------------------------------------------


def shell_scripts() -> list[Path]:
    first_line = re.compile(r"#!\s*/(usr/)?bin/(env )?(ba|da)?sh\b")
    return [path for path in repository_files() if first_line.match(text_of(path)[:40])]


def test_shellcheck() -> None:
    scripts = shell_scripts()
    assert {ROOT / ".ci/run", ROOT / "tests/setup.sh"} <= set(scripts)
    expect_clean(call("shellcheck", *scripts))


def test_shellcheck_finds_an_unquoted_variable() -> None:
    assert "SC2086" in call("shellcheck", "-", stdin="#!/bin/sh\nrm $1\n").stdout


# --- units --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stock_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with this machine's own units, for ours to refer to."""
    root = tmp_path_factory.mktemp("stock")
    shutil.copytree("/usr/lib/systemd/system", root / INSTALLED_UNITS, symlinks=True)
    return root


@pytest.fixture
def unit_root(stock_root: Path, tmp_path: Path) -> Path:
    """A root as our package leaves it: units, drop-ins, and every program that they execute."""
    root = tmp_path / "root"
    units = root / INSTALLED_UNITS
    shutil.copytree(stock_root, root, symlinks=True)
    shutil.copytree(ROOT / "units", units, dirs_exist_ok=True)
    for dropin in (ROOT / "dropins").glob("*.d"):
        shutil.copytree(dropin, units / dropin.name, dirs_exist_ok=True)
    for n, dropin in enumerate(sorted((ROOT / "dropins/hold").glob("*.conf"))):
        (units / f"hold{n}.service.d").mkdir()
        shutil.copy(dropin, units / f"hold{n}.service.d" / "50-issu.conf")
    for name in (path.name.removesuffix(".d") for path in units.glob("*.d")):
        if not (units / name).exists():
            service = name.endswith(".service")
            (units / name).write_text("[Service]\nExecStart=/bin/sh\n" if service else "[Unit]\n")

    executed = {"/bin/sh"}
    for path in units.rglob("*.*"):
        if path.is_file():
            executed |= set(re.findall(r"^Exec\w+=[-@:+!|]*(/\S+)", text_of(path), re.MULTILINE))
    for program in filter(exists, executed):
        stand_in = root / program.lstrip("/")
        stand_in.parent.mkdir(parents=True, exist_ok=True)
        stand_in.touch(mode=0o755)
    return root


def exists(program: str) -> bool:
    """Whether the package brings this program, or else this machine has it."""
    source = PROGRAMS.get(program)
    return source.exists() if source else os.access(program, os.X_OK)


def complaints(root: Path) -> list[str]:
    """What systemd-analyze says of our units and of our drop-ins, and of nothing else."""
    units = [path.name for path in (ROOT / "units").iterdir()]
    changed = [d.name.removesuffix(".d") for d in (root / INSTALLED_UNITS).glob("*.d")]
    argv = ["systemd-analyze", "verify", "--man=no", f"--root={root}", *units, *changed]
    ours = re.compile("|".join([*map(re.escape, units), r"issu@\w*\.", r"/50-issu\.conf"]))
    return [line for line in call(*argv).stdout.splitlines() if ours.search(line)]


def test_units_verify(unit_root: Path) -> None:
    assert list((ROOT / "units").iterdir())
    assert complaints(unit_root) == []


def test_verify_finds_what_is_wrong(unit_root: Path) -> None:
    units = unit_root / INSTALLED_UNITS
    with (units / "issu@.service").open("a") as unit:
        unit.write("\n[Service]\nNoSuchSetting=1\nExecStartPre=/usr/lib/issu/no-such-program\n")
    dropin = next(units.glob("*.d/50-issu.conf"))
    dropin.write_text("[Unit]\nNoSuchSetting=1\n")
    found = "\n".join(complaints(unit_root))
    assert "/issu@.service:" in found
    assert "no-such-program is not executable" in found
    assert f"{dropin.parent.name}/50-issu.conf:2" in found


# --- man pages ----------------------------------------------------------------------------------

PANDOC = ("pandoc", "--standalone", "--fail-if-warnings", "--from", "markdown", "--to", "man")
PAGES = sorted((ROOT / "docs").glob("*.[1-8].md"))


def test_every_interface_has_a_man_page() -> None:
    assert {page.name for page in PAGES} >= {"issu.1.md", "issu@.service.8.md", "issu.toml.5.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_man_page_builds(page: Path) -> None:
    result = call(*PANDOC, page)
    expect_clean(result)
    name, section = page.name.removesuffix(".md").rsplit(".", 1)
    heading = re.search(r'^\.TH "(\S+)" "(\d)"', result.stdout, re.MULTILINE)
    assert heading
    assert heading[1].replace(r"\[at]", "@").casefold() == name
    assert heading[2] == section


def test_pandoc_warnings_are_errors() -> None:
    assert call(*PANDOC, stdin="[a]: b\n[a]: c\n").returncode != 0


# --- the repository -----------------------------------------------------------------------------


def registry_hosts() -> set[str]:
    """The hosts from which apt and pip of this machine install."""
    sources = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]
    configured = "".join(text_of(path) for path in sources if path.is_file())
    configured += python("pip", "config", "list").stdout
    ask = "from pip._internal.models.index import PyPI; print(PyPI.url, PyPI.file_storage_domain)"
    index, files = call(sys.executable, "-c", ask).stdout.split()
    configured += f"{index}\nhttps://{files}\n"
    hosts = re.findall(r"https?://(?:[^/@\s]*@)?([\w.-]+)", configured)
    return {host for host in hosts if not host.startswith(("localhost", "127."))}


def naming(hosts: set[str], paths: list[Path]) -> list[str]:
    """Where one of the hosts is named, as path:line."""
    name = re.compile("|".join(map(re.escape, sorted(hosts))))
    return [
        f"{path}:{number}"
        for path in paths
        for number, line in enumerate(text_of(path).splitlines(), 1)
        if name.search(line)
    ]


def test_no_file_names_a_registry() -> None:
    hosts = registry_hosts()
    assert len(hosts) >= 2
    assert naming(hosts, list(repository_files())) == []


def test_a_named_registry_is_found(tmp_path: Path) -> None:
    note = tmp_path / "note"
    note.write_text(f"\nsee https://{min(registry_hosts())}/x\n")
    assert naming(registry_hosts(), [note]) == [f"{note}:2"]


def test_one_version() -> None:
    head = text_of(ROOT / "debian/changelog").splitlines()[0]
    assert head.startswith(f"issu-systemd ({__version__}) ")


# --- the suite itself ---------------------------------------------------------------------------

SKIPS = "import pytest\n@pytest.mark.skip(reason='no qemu')\ndef test(): ...\n"
SKIPS_WHOLE = "import pytest\npytest.skip('no qemu', allow_module_level=True)\n"
PASSES = "def test(): ...\n"
WORKERS = "--numprocesses=2"


def run_suite(
    top: Path, tier: str, modules: dict[str, str], *options: str, ci: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a test suite that consists of these modules in one tier."""
    tests = top / "tests"
    (tests / tier).mkdir(parents=True)
    shutil.copy(ROOT / "tests/conftest.py", tests)
    shutil.copy(ROOT / "pyproject.toml", top)
    for name, text in modules.items():
        (tests / tier / name).write_text(text)
    env = {**os.environ, "CI": ci}
    return call(sys.executable, "-m", "pytest", "--rootdir", top, *options, tests, env=env)


CASES = {  # tier, module, CI, what is said
    "CI-skip": ("vm", SKIPS, "true", "may skip where CI=true, and it did: Skipped: no qemu"),
    "CI-skip-module": ("vm", SKIPS_WHOLE, "true", "and it did: Skipped: no qemu"),
    "CI-skip-one": ("container", SKIPS + "def test_more(): ...\n", "true", "Skipped: no qemu"),
    "skip-all": ("vm", SKIPS, "", "no test was executed"),
    "CI-unit-skip-all": ("unit", SKIPS, "true", "no test was executed"),
    "empty": ("bus", "", "", "no test was executed"),
    "passes": ("vm", PASSES, "true", ""),
    "CI-unit-skip-one": ("unit", SKIPS + "def test_more(): ...\n", "true", ""),
}
WITH_WORKERS = ("CI-skip", "CI-skip-module", "skip-all", "passes")


@pytest.mark.parametrize(
    ("case", "options"),
    [(case, ()) for case in CASES] + [(case, (WORKERS,)) for case in WITH_WORKERS],
    ids=[*CASES, *(f"{case}-workers" for case in WITH_WORKERS)],
)
def test_tier_fails_that_shows_nothing(
    tmp_path: Path, case: str, options: tuple[str, ...]
) -> None:
    tier, module, ci, says = CASES[case]
    result = run_suite(tmp_path, tier, {"test_it.py": module}, *options, ci=ci)
    assert (says in result.stdout) and (result.returncode != 0) == bool(says), result.stdout


# Each waits for the other to begin; so one that is to run alone waits in vain.
MEETS = """
import pytest
from pathlib import Path
from time import monotonic, sleep
pytestmark = [{marks}]
def test():
    Path("{top}/{me}").touch()
    end = monotonic() + {patience}
    while not Path("{top}/{other}").exists():
        assert monotonic() < end, "alone"
        sleep(0.01)
"""


@pytest.mark.parametrize("marks", ["", "pytest.mark.alone"])
def test_a_test_has_the_machine_for_itself(tmp_path: Path, marks: str) -> None:
    patience = 1 if marks else 30
    modules = {
        f"test_{me}.py": MEETS.format(
            marks=marks, top=tmp_path, me=me, other=other, patience=patience
        )
        for me, other in ("ab", "ba")
    }
    result = run_suite(tmp_path, "unit", modules, WORKERS, "--dist=loadfile")
    # The second of two that are alone finds that the first began before.
    assert ("1 failed, 1 passed" if marks else "2 passed") in result.stdout, result.stdout
