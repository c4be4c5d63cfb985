"""Settings: fragments merged by file name, every key, and errors that name file and key."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from issu_systemd.errors import SettingsError
from issu_systemd.settings import DIRECTORIES, KEYS, Settings, fragments, load, parse, timespan

VENDOR, ADMIN, RUNTIME = DIRECTORIES
SEC, MIN, HOUR = 1_000_000, 60_000_000, 3_600_000_000

# Every key of the contract (design.md, section 4): what a file may say, and what it means.
EVERY: dict[tuple[str, str], tuple[str, str, Any]] = {
    ("release", "keep"): ('["vendor-asic.service"]', "keep", ("vendor-asic.service",)),
    ("release", "stop-timeout"): ('"30s"', "stop_timeout_usec", 30 * SEC),
    ("release", "keep-ipc"): ('["shm:0x46494201"]', "keep_ipc", ("shm:0x46494201",)),
    ("stage", "modules"): ('"bind"', "modules", "bind"),
    ("stage", "rehearse"): ("true", "rehearse", True),
    ("stage", "rehearse-timeout"): ('"3min"', "rehearse_timeout_usec", 3 * MIN),
    ("stage", "rehearse-skip"): ('["hostapd.service"]', "rehearse_skip", ("hostapd.service",)),
    ("stage", "verity"): (f'"{"AB" * 32}"', "verity", "ab" * 32),
    ("stage", "verity-hashes"): ('"/dev/sdb3"', "verity_hashes", "/dev/sdb3"),
    ("stage", "verify-command"): (
        '"/usr/local/sbin/check-image --key \'a b\'"',
        "verify_command",
        ("/usr/local/sbin/check-image", "--key", "a b"),
    ),
    ("stage", "verify-timeout"): ('"10min"', "trust_timeout_usec", 10 * MIN),
    ("arrive", "sysctl"): ("true", "sysctl", True),
    ("arrive", "skip"): ('["hw-reset@.service"]', "skip", ("hw-reset@.service",)),
    ("carry", "files"): ('["/etc/ssh/ssh_host_*"]', "carry_files", ("/etc/ssh/ssh_host_*",)),
    ("carry", "mounts"): ('["/var/lib/element"]', "carry_mounts", ("/var/lib/element",)),
    ("carry", "journal"): ("false", "carry_journal", False),
    ("switch", "strategy"): ('"live"', "strategy", "live"),
    ("switch", "watchdog"): ('"60s"', "watchdog_usec", MIN),
    ("live", "parallel"): ("4", "live_parallel", 4),
    ("live", "timeout"): ('"2min"', "live_timeout_usec", 2 * MIN),
    ("live", "settle"): ('"500ms"', "live_settle_usec", SEC // 2),
    ("live", "sessions"): ('"terminate"', "sessions", "terminate"),
    ("verify", "units"): ('["frr.service"]', "verify_units", ("frr.service",)),
    ("verify", "timeout"): ('"120s"', "verify_timeout_usec", 120 * SEC),
    ("verify", "settle"): ('"10s"', "verify_settle_usec", 10 * SEC),
    ("verify", "program-timeout"): ('"1min"', "verify_program_timeout_usec", MIN),
    ("verify", "continuity"): ('"strict"', "verify_continuity", "strict"),
    ("accept", "mode"): ('"manual"', "accept_mode", "manual"),
    ("accept", "timeout"): ('"45min"', "accept_timeout_usec", 45 * MIN),
    ("accept", "boot-loader"): ('"systemd-boot"', "boot_loader", "systemd-boot"),
    ("history", "keep"): ("7", "reports", 7),
    ("accept", "program-timeout"): ('"10s"', "hook_timeout_usec", 10 * SEC),
}


def write(root: Path, directory: str, name: str, text: str) -> Path:
    path = root / directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# --- defaults -----------------------------------------------------------------------------------


def test_defaults_are_the_contract(tmp_path: Path) -> None:
    assert load(tmp_path) == Settings(
        keep=(),
        stop_timeout_usec=30 * SEC,
        keep_ipc=(),
        modules="require",
        rehearse=False,
        rehearse_timeout_usec=120 * SEC,
        rehearse_skip=(),
        verity="",
        verity_hashes="",
        verify_command=(),
        trust_timeout_usec=5 * MIN,
        skip=(),
        sysctl=False,
        carry_files=("/etc/machine-id", "/etc/hostname", "/etc/ssh/ssh_host_*"),
        carry_mounts=(),
        carry_journal=True,
        strategy="halt",
        watchdog_usec=0,
        live_parallel=1,
        live_timeout_usec=120 * SEC,
        live_settle_usec=SEC,
        sessions="keep",
        verify_units=(),
        verify_timeout_usec=120 * SEC,
        verify_settle_usec=5 * SEC,
        verify_program_timeout_usec=30 * SEC,
        verify_continuity="report",
        accept_mode="auto",
        accept_timeout_usec=45 * MIN,
        boot_loader="none",
        hook_timeout_usec=30 * SEC,
        reports=100,
    )


def test_every_setting_has_a_key_and_a_case_here() -> None:
    assert {field for field, _ in KEYS.values()} == {f.name for f in fields(Settings)}
    assert set(KEYS) == set(EVERY)


@pytest.mark.parametrize(("section", "key"), EVERY, ids=lambda word: word)
def test_every_key(section: str, key: str) -> None:
    written, field, value = EVERY[section, key]
    assert parse(f"[{section}]\n{key} = {written}\n", "x.toml") == {field: value}


# --- merging ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high"), [(VENDOR, ADMIN), (ADMIN, RUNTIME), (VENDOR, RUNTIME)], ids=str
)
def test_same_named_file_of_a_later_directory_replaces(tmp_path: Path, low: str, high: str) -> None:
    write(tmp_path, low, "50.toml", '[switch]\nstrategy = "live"\n[accept]\nmode = "manual"\n')
    write(tmp_path, high, "50.toml", '[switch]\nstrategy = "halt"\n')
    assert load(tmp_path) == Settings()  # of the replaced file nothing is left, mode included


def test_files_are_merged_in_the_order_of_their_names(tmp_path: Path) -> None:
    """The name decides, not the directory: the vendor's 90 beats the administrator's 10."""
    write(tmp_path, ADMIN, "10.toml", '[release]\nstop-timeout = "1s"\nkeep = ["a.service"]\n')
    write(tmp_path, VENDOR, "90.toml", '[release]\nstop-timeout = "9s"\n')
    chosen = load(tmp_path)
    assert (chosen.stop_timeout_usec, chosen.keep) == (9 * SEC, ("a.service",))


def test_a_later_list_replaces_an_earlier_one(tmp_path: Path) -> None:
    write(tmp_path, VENDOR, "10.toml", '[release]\nkeep = ["a.service"]\n')
    write(tmp_path, VENDOR, "20.toml", '[release]\nkeep = ["b.service"]\n')
    assert load(tmp_path).keep == ("b.service",)


def test_only_toml_files_count(tmp_path: Path) -> None:
    write(tmp_path, ADMIN, "10.toml.dpkg-old", "nonsense")
    write(tmp_path, ADMIN, "README", "nonsense")
    kept = write(tmp_path, ADMIN, "10.toml", "")
    assert fragments(tmp_path) == [kept]


def test_an_empty_file_masks_the_vendors(tmp_path: Path) -> None:
    write(tmp_path, VENDOR, "10.toml", '[switch]\nstrategy = "live"\n')
    assert load(tmp_path).strategy == "live"
    write(tmp_path, ADMIN, "10.toml", "")
    assert load(tmp_path).strategy == "halt"


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[switch]\nwatchdog = "5s"\n', "[switch] watchdog"),
        ('[accept]\nboot-loader = "lilo"\n', "[accept] boot-loader"),
        ("[release]\nkep = []\n", "[release] kep"),
        ("[relase]\nkeep = []\n", "[relase] keep"),
        ('[stage]\nmodules = "copy"\n', "[stage] modules: one of require, bind"),
        ("[stage]\nmodules = true\n", "[stage] modules"),
        ('[arrive]\nsysctl = "yes"\n', "[arrive] sysctl: true or false"),
        ("[arrive]\nkeep = []\n", "[arrive] keep"),
        ("[Release]\nkeep = []\n", "[Release] keep"),
        ("[release.keep]\na = 1\n", "[release] keep"),
        ("keep = []\n", "keep"),
        ("[[release]]\nkeep = []\n", "release"),
        ("[release\n", "line 1"),
        ("[release]\nkeep = []\nkeep = []\n", "line 3"),
    ],
    ids=[
        "watchdog",
        "boot-loader",
        "key",
        "section",
        "choice",
        "no-choice",
        "no-boolean",
        "key-of-another-section",
        "case",
        "table-for-a-list",
        "no-section",
        "array-of-sections",
        "syntax",
        "twice",
    ],
)
def test_an_error_names_file_and_key(tmp_path: Path, text: str, named: str) -> None:
    write(tmp_path, VENDOR, "10.toml", '[switch]\nstrategy = "live"\n')
    wrong = write(tmp_path, ADMIN, "20.toml", text)
    with pytest.raises(SettingsError) as caught:
        load(tmp_path)
    assert str(wrong) in str(caught.value)
    assert named in str(caught.value)
    assert caught.value.hint


def test_a_replaced_file_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, VENDOR, "10.toml", "[release]\nkep = []\n")
    write(tmp_path, ADMIN, "10.toml", "")
    assert load(tmp_path) == Settings()


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("release", "keep", '"frr.service"'),
        ("release", "keep", "[1]"),
        ("release", "keep", '["frr"]'),
        ("release", "keep", '["/etc/frr.service"]'),
        ("release", "keep", '[""]'),
        ("release", "keep-ipc", '["shm"]'),
        ("release", "keep-ipc", '["pipe:1"]'),
        ("release", "keep-ipc", '["shm:0x123456789"]'),
        ("release", "keep-ipc", '["shm:-1"]'),
        ("release", "keep-ipc", '["shm:1x"]'),
        ("release", "stop-timeout", '"soon"'),
        ("release", "stop-timeout", '""'),
        ("release", "stop-timeout", '"-1s"'),
        ("release", "stop-timeout", "-1"),
        ("release", "stop-timeout", "1.5"),
        ("release", "stop-timeout", "true"),
        ("arrive", "skip", '["*"]'),
        ("carry", "files", '["etc/hostname"]'),
        ("carry", "files", '["/etc/../root/x"]'),
        ("carry", "files", "[[]]"),
        ("carry", "mounts", '["/a/.."]'),
        ("carry", "journal", '"yes"'),
        ("carry", "journal", "1"),
        ("switch", "strategy", '"fast"'),
        ("switch", "strategy", '["halt"]'),
        ("accept", "mode", '"Auto"'),
        ("verify", "timeout", '"2 fortnights"'),
    ],
)
def test_a_bad_value_is_refused(tmp_path: Path, section: str, key: str, value: str) -> None:
    wrong = write(tmp_path, RUNTIME, "1.toml", f"[{section}]\n{key} = {value}\n")
    with pytest.raises(SettingsError) as caught:
        load(tmp_path)
    assert f"{wrong}: [{section}] {key}: " in str(caught.value)


def test_a_file_that_is_no_text_names_itself(tmp_path: Path) -> None:
    wrong = write(tmp_path, ADMIN, "1.toml", "")
    wrong.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=str(wrong)):
        load(tmp_path)


def test_a_dangling_link_names_itself(tmp_path: Path) -> None:
    wrong = write(tmp_path, ADMIN, "1.toml", "")
    wrong.unlink()
    wrong.symlink_to("nowhere.toml")
    with pytest.raises(SettingsError, match=str(wrong)):
        load(tmp_path)


@pytest.mark.parametrize(
    ("text", "usec"),
    [
        (0, 0),
        (90, 90 * SEC),
        ("90", 90 * SEC),
        ("30s", 30 * SEC),
        ("30 s", 30 * SEC),
        ("1min 30s", 90 * SEC),
        ("1min30s", 90 * SEC),
        ("1m", MIN),
        ("45min", 45 * MIN),
        ("2 minutes", 2 * MIN),
        ("1h", HOUR),
        ("2 hours 1 second", 2 * HOUR + SEC),
        ("1hr", HOUR),
        ("1d 2h", 26 * HOUR),
        ("2 days", 48 * HOUR),
        ("500ms", 500_000),
        ("500 msec", 500_000),
        ("7us", 7),
        ("7usec", 7),
        ("1s 1ms 1us", SEC + 1001),
        ("3sec", 3 * SEC),
        ("3 seconds", 3 * SEC),
    ],
)
def test_time_spans(text: object, usec: int) -> None:
    assert timespan(text) == usec


@pytest.mark.parametrize(
    "text", ["", " ", "s", "1.5s", "1 parsec", "1month", "-1s", "1s,", "infinity", -1, 1.5, None]
)
def test_what_is_no_time_span(text: object) -> None:
    with pytest.raises(ValueError, match="time span"):
        timespan(text)


@pytest.mark.parametrize("value", [True, False])
def test_a_truth_value_is_no_time_span(value: object) -> None:
    with pytest.raises(ValueError, match="time span"):
        timespan(value)


@pytest.mark.parametrize("value", ["0", "-1", "true", "1.5", '"2"'])
def test_how_many_at_once_is_a_number_from_one_on(value: str) -> None:
    with pytest.raises(SettingsError, match=r"\[live\] parallel: a whole number"):
        parse(f"[live]\nparallel = {value}\n", "x.toml")


# --- programs and hashes ------------------------------------------------------------------------


def test_a_command_is_a_string_or_a_list() -> None:
    for written in ('"/bin/check -q"', '["/bin/check", "-q"]'):
        found = parse(f"[stage]\nverify-command = {written}\n", "x.toml")
        assert found == {"verify_command": ("/bin/check", "-q")}


@pytest.mark.parametrize("written", ['""', "[]", '"check"', "1", '"/bin/check \'"', "[1]"])
def test_what_is_no_command(written: str) -> None:
    with pytest.raises(SettingsError, match=r"x\.toml: \[stage\] verify-command"):
        parse(f"[stage]\nverify-command = {written}\n", "x.toml")


@pytest.mark.parametrize("written", ['""', '"abc"', f'"{"g" * 64}"', f'"0x{"a" * 62}"', "7"])
def test_what_is_no_root_hash(written: str) -> None:
    with pytest.raises(SettingsError, match=r"\[stage\] verity"):
        parse(f"[stage]\nverity = {written}\n", "x.toml")
