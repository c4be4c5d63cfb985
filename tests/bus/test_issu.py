"""Each verb of the command: what it asks org.issu1, what it prints, and its exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import Any

import pytest

from tests.bus.issu import END_SEC, ID, REPORT, ROOT, Issu, heed_ctrl_c
from tests.bus.issu1 import Service, job

TARGET = "/dev/disk/by-uuid/12-34"
BLOCK = {"id": "modules", "severity": "block", "text": "no modules", "way_out": "install them"}
INFO = {"id": "swap", "severity": "info", "text": "swap is on", "way_out": ""}
RUNS = {"Phase": "stage", "Progress": [20, "stage", 1], "AllowCancel": True, "Target": TARGET}
ENDED = RUNS | {"Phase": "accept", "Progress": [100, "", 1], "Result": "accepted"}
LIVE = {"Mechanism": "pivot"}
HALT = {"Mechanism": "soft-reboot"}
STARTED = {"Start": [ID, job(ID)]}


def a_report(**more: Any) -> dict[str, list[Any]]:
    return {"GetReport": [json.dumps(REPORT | {"id": ID} | more)]}


def ends(result: str, error: str = "") -> dict[str, dict[str, Any]]:
    return {ID: ENDED | {"Result": result, "Error": error}}


# --- errors -------------------------------------------------------------------------------------

VERBS = {
    "Check": ["check", TARGET],
    "Start": ["start", TARGET],
    "ListJobs": ["monitor"],
    "Accept": ["accept"],
    "Rollback": ["rollback"],
    "Cancel": ["cancel", ID],
    "GetReport": ["report"],
    "ListHistory": ["history"],
    "Inhibit": ["inhibit", "true"],
    "ListInhibitors": ["inhibit", "--list"],
}
ERRORS = {
    "org.issu1.Error.Failed": 1,
    "org.issu1.Error.NoSuchJob": 1,
    "org.issu1.Error.PastPointOfNoReturn": 1,
    "org.issu1.Error.InvalidArgument": 2,
    "org.issu1.Error.NotEligible": 3,
    "org.issu1.Error.NotAuthorized": 5,
    "org.freedesktop.DBus.Error.AccessDenied": 5,
    "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired": 5,
    "org.issu1.Error.Busy": 6,
    "org.issu1.Error.Inhibited": 7,
}


@pytest.mark.parametrize("method", VERBS)
def test_an_error_of_each_method_is_told(issu: Issu, service: Service, method: str) -> None:
    service.be(errors={method: ["org.issu1.Error.NotAuthorized", "you may not"]})
    done = issu(*VERBS[method])
    assert (done.status, done.out) == (5, "")
    assert done.err == "issu: you may not\n"
    assert [call[0] for call in service.calls(method)] == [method]


@pytest.mark.parametrize("name", ERRORS)
def test_each_error_has_its_exit_status(issu: Issu, service: Service, name: str) -> None:
    service.be(errors={"Start": [name, "the reason"]})
    assert issu("start", TARGET) == (ERRORS[name], "", "issu: the reason\n")


@pytest.mark.parametrize("verb", [words for words in VERBS.values() if words[0] != "report"])
def test_without_a_bus(issu: Issu, verb: list[str]) -> None:
    done = issu(*verb, DBUS_SYSTEM_BUS_ADDRESS=f"unix:path={issu.place}/none")
    if verb == ["history"]:
        assert done == (0, "ID  RESULT  STRATEGY  TARGET  OUTAGE  ERROR\n", "")
        return
    assert (done.status, done.out) == (1, "")
    first, *hint = done.err.splitlines()
    assert first == "issu: the system bus cannot be reached: No such file or directory"
    known = {"check", "start", "monitor", "rollback", "cancel"}
    assert bool(hint) == (verb[0] in known)
    if verb[0] == "start":
        assert hint == ["  systemctl start issu@DEVICE"]


# --- check --------------------------------------------------------------------------------------


def test_check_of_a_good_root(issu: Issu, service: Service) -> None:
    service.be(answers={"Check": [True, [INFO]]})
    done = issu("check", TARGET, "--strategy=live")
    assert (done.status, done.err) == (0, "")
    assert done.out.splitlines()[-1] == f"An upgrade to {TARGET} would start."
    assert service.calls() == [["Check", "/org/issu1", TARGET, {"strategy": "live"}]]
    assert issu("check", "--rehearse", TARGET).status == 0
    assert service.calls()[-1] == ["Check", "/org/issu1", TARGET, {"rehearse": True}]
    assert issu("check", TARGET, "--no-legend").out.startswith("info  swap  swap is on\n")


def test_check_of_a_bad_root(issu: Issu, service: Service) -> None:
    service.be(answers={"Check": [False, [INFO, BLOCK]]})
    done = issu("check", TARGET)
    assert (done.status, done.err) == (3, "")
    assert done.out.splitlines() == [
        "SEVERITY  ID       FINDING",
        "block     modules  no modules",
        "                   way out: install them",
        "info      swap     swap is on",
        f"An upgrade to {TARGET} would be refused: 1 blocking finding.",
    ]
    assert issu("check", "--quiet", TARGET) == (3, "", "")
    for words in (["--json", TARGET], [TARGET, "--json=short"], ["--json", "short", TARGET]):
        done = issu("check", *words)
        assert done.status == 3
        found = {"target": TARGET, "eligible": False, "findings": [INFO, BLOCK]}
        assert json.loads(done.out) == found
    assert done.out.count("\n") == 1
    assert issu("check", TARGET, "--json=off").out.startswith("SEVERITY")


# --- start --------------------------------------------------------------------------------------


def test_start_asks_as_it_is_told(issu: Issu, service: Service) -> None:
    service.be(answers=STARTED | a_report(), jobs=ends("accepted"), manager=LIVE)
    done = issu("start", TARGET, "--strategy=live", "--force", "swap", "--force=modules")
    assert done.status == 0, done.err
    options = {"strategy": "live", "force": ["swap", "modules"]}
    assert service.calls("Start") == [["Start", "/org/issu1", TARGET, options]]
    assert not service.is_interactive()


@pytest.mark.parametrize("mechanism", [LIVE, HALT], ids=["live", "halt"])
def test_start_without_blocking(issu: Issu, service: Service, mechanism: dict[str, str]) -> None:
    service.be(answers=STARTED, jobs={ID: RUNS}, manager=mechanism)
    assert issu("start", "--no-block", TARGET) == (0, f"{ID}\n", "")
    assert issu("start", "--no-block", "-q", TARGET) == (0, "", "")


def test_start_with_halt_ends_when_services_stop(issu: Issu, service: Service) -> None:
    service.be(answers=STARTED, jobs={ID: RUNS}, manager=HALT)
    process = issu.popen("start", TARGET)
    assert process.stdout
    first = [process.stdout.readline() for _ in range(3)]
    assert "every service stops, and this session with them" in first[0]
    assert "issu monitor" in first[1]
    assert first[2] == "stage\n"
    service.job(ID, Phase="release")
    out, err = process.communicate(timeout=END_SEC)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[-2] == "release: every service stops now, and this session with them"
    assert "issu monitor" in out.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "mechanism"),
    [(["--wait"], HALT), ([], LIVE), (["--strategy=live"], HALT)],
    ids=["halt-wait", "live", "live-asked-for"],
)
def test_start_stays_to_the_end(
    issu: Issu, service: Service, words: list[str], mechanism: dict[str, str]
) -> None:
    service.be(answers=STARTED | a_report(), jobs={ID: RUNS}, manager=mechanism)
    process = issu.popen("start", TARGET, *words)
    assert process.stdout
    halts = "--wait" in words
    told = [process.stdout.readline() for _ in range(3 if halts else 1)]
    assert ("every service stops" in told[0]) == halts
    assert told[-1] == "stage\n"
    for phase in ("release", "arrive"):
        service.job(ID, Phase=phase)
        assert process.stdout.readline() == f"{phase}\n"
    service.job(ID, **ENDED)
    out, err = process.communicate(timeout=END_SEC)
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[-1].startswith(f"{ID}: accepted, ")


@pytest.mark.parametrize(
    ("result", "status", "says"),
    [
        ("refused", 3, "refused: no modules"),
        ("rolled-back", 4, "rolled back to the old root: no modules"),
        ("failed", 1, "the upgrade failed: no modules"),
    ],
)
@pytest.mark.parametrize("mechanism", [LIVE, HALT], ids=["live", "halt"])
def test_start_that_ends_badly(
    issu: Issu, service: Service, mechanism: dict[str, str], result: str, status: int, says: str
) -> None:
    service.be(answers=STARTED, jobs=ends(result, "no modules"), manager=mechanism)
    assert issu("start", TARGET).out == "accept\n"  # and no word of what will not happen
    done = issu("start", TARGET, "--quiet")
    assert done == (status, "", f"issu: {says}\n  issu report {ID}\n")


def test_ctrl_c_ends_the_command_and_not_the_upgrade(issu: Issu, service: Service) -> None:
    service.be(answers=STARTED, jobs={ID: RUNS}, manager=LIVE)
    process = issu.popen("start", TARGET)
    assert process.stdout
    assert process.stdout.readline() == "stage\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=END_SEC)
    assert (process.returncode, out, err) == (130, "", "")
    assert service.calls("Cancel") == []


# --- monitor ------------------------------------------------------------------------------------


def test_monitor_tells_the_story_from_its_start(issu: Issu, service: Service) -> None:
    now = time.monotonic_ns() // 1000
    phases = [
        {"name": "preflight", "start_usec": now - 3_000_000, "end_usec": now - 2_500_000},
        {"name": "stage", "start_usec": now - 2_500_000, "end_usec": None},
    ]
    answers = a_report(result=None, phases=phases) | {"ListJobs": [[[ID, job(ID), "stage"]]]}
    service.be(answers=answers, jobs={ID: RUNS})
    process = issu.popen("monitor")
    assert process.stdout
    told = [process.stdout.readline() for _ in range(3)]
    assert told == [f"{ID}\n", "preflight  0.500 s\n", "stage\n"]
    service.be(answers=a_report(), jobs={ID: RUNS})
    service.job(ID, Phase="arrive")
    assert process.stdout.readline() == "arrive\n"
    service.job(ID, **ENDED | {"Result": "rolled-back", "Error": "frail.service"})
    out, err = process.communicate(timeout=END_SEC)
    assert (process.returncode, out) == (4, "accept\n")
    assert "rolled back to the old root: frail.service" in err


def test_monitor_as_json(issu: Issu, service: Service) -> None:
    service.be(answers=a_report() | {"ListJobs": [[[ID, job(ID), "accept"]]]}, jobs=ends("failed"))
    done = issu("monitor", "--json=short")
    assert done.status == 1
    [line] = done.out.splitlines()
    assert json.loads(line) == {
        "id": ID, "phase": "accept", "percent": 100, "result": "failed", "error": "",
        "away": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("result", "status"), [("accepted", 0), ("rolled-back", 4), ("failed", 1), ("refused", 3)]
)
def test_monitor_when_nothing_runs(issu: Issu, service: Service, result: str, status: int) -> None:
    service.be(answers=a_report(result=result, error="the reason"))
    done = issu("monitor")
    assert done.status == status
    assert ("accepted" in done.out) == (status == 0)
    assert ("the reason" in done.err) == (status != 0)
    assert json.loads(issu("monitor", "--json").out)["id"] == ID


# --- accept, rollback, cancel -------------------------------------------------------------------


def test_accept(issu: Issu, service: Service) -> None:
    service.be(manager={"RunningRoot": "/dev/sdb2"})
    assert issu("accept") == (0, "accepted: /dev/sdb2 stays\n", "")
    assert issu("accept", "--quiet") == (0, "", "")
    assert service.calls() == [["Accept", "/org/issu1"]] * 2


@pytest.mark.parametrize("result", ["rolled-back", "accepted"])
def test_rollback_that_comes_back_is_a_success(issu: Issu, service: Service, result: str) -> None:
    manager = LIVE | {"CurrentJob": job(ID), "PreviousRoot": "/dev/sda2"}
    service.be(answers=a_report(), jobs=ends(result, "asked for"), manager=manager)
    done = issu("rollback")
    assert (done.status, done.err) == (0, "")
    assert result.replace("-", " ") in done.out
    assert service.calls("Rollback") == [["Rollback", "/org/issu1"]]


def test_rollback_that_does_not(issu: Issu, service: Service) -> None:
    manager = LIVE | {"CurrentJob": job(ID)}
    service.be(jobs=ends("failed", "frail.service"), manager=manager)
    done = issu("rollback")
    assert (done.status, "frail.service" in done.err) == (1, True)


def test_rollback_without_blocking(issu: Issu, service: Service) -> None:
    service.be(jobs={ID: RUNS}, manager=HALT | {"CurrentJob": job(ID)})
    assert issu("rollback", "--no-block") == (0, f"{ID}\n", "")


def test_rollback_when_no_job_comes(issu: Issu, service: Service) -> None:
    service.be(manager=HALT)
    done = issu("rollback", TEST_NEW_JOB_SEC="0")
    assert (done.status, done.err) == (1, "issu: no upgrade has begun\n  issu status\n")


@pytest.mark.parametrize("words", [[ID], []], ids=["by-id", "the-one-that-runs"])
def test_cancel_waits_for_the_end(issu: Issu, service: Service, words: list[str]) -> None:
    service.be(jobs={ID: RUNS}, manager={"CurrentJob": job(ID)})
    process = issu.popen("cancel", *words)
    deadline = time.monotonic() + END_SEC
    while not service.calls("Cancel"):
        assert time.monotonic() < deadline
        assert process.poll() is None
    assert service.calls() == [["Cancel", job(ID)]]
    service.job(ID, **ENDED | {"Result": "failed", "Error": "cancelled by user 0"})
    out, err = process.communicate(timeout=END_SEC)
    assert (process.returncode, err) == (0, "")
    assert out == f"{ID}: given up; everything is as it was before\n  cancelled by user 0\n"


def test_cancel_that_comes_too_late(issu: Issu, service: Service) -> None:
    service.be(jobs=ends("accepted"))
    done = issu("cancel", ID)
    assert (done.status, "had ended before" in done.err) == (1, True)


@pytest.mark.parametrize("id", ["../x", "a/b", "ä", "x\ny"])
def test_cancel_of_what_can_be_no_id(issu: Issu, service: Service, id: str) -> None:
    done = issu("cancel", id)
    assert (done.status, done.out) == (1, "")
    assert done.err.startswith("issu: no upgrade ")
    assert "Traceback" not in done.err
    assert service.calls() == []


def test_cancel_when_nothing_runs(issu: Issu) -> None:
    assert issu("cancel") == (1, "", "issu: no upgrade runs\n")


# --- report, history ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [["--json", ID], [ID, "--json"], ["--json=pretty", ID], ["--json", "short", ID]]
)
def test_report_as_json(issu: Issu, service: Service, words: list[str]) -> None:
    """`--json ID` takes no ID for its value."""
    service.be(answers=a_report())
    done = issu("report", *words)
    assert (done.status, done.err) == (0, "")
    assert json.loads(done.out) == REPORT | {"id": ID}
    assert (done.out.count("\n") == 1) == ("short" in words)
    assert service.calls() == [["GetReport", "/org/issu1", ID]]


def test_report_for_people_and_as_a_picture(issu: Issu, service: Service) -> None:
    service.be(answers=a_report())
    assert issu("report").out.startswith(f"ISSU {ID}: ACCEPTED\n")
    assert issu("report", "--json=off").out.startswith("ISSU")
    assert issu("report", "--svg", f"{issu.place}/x.svg") == (0, "", "")
    assert (issu.place / "x.svg").read_text().startswith("<")
    assert issu("report", "--svg=/none/x.svg").status == 1
    assert service.calls()[0] == ["GetReport", "/org/issu1", ""]


def test_report_of_an_unknown_one_names_the_last(issu: Issu, service: Service) -> None:
    rows = [{"id": "b"}, {"id": "a"}]
    gone = ["org.issu1.Error.NoSuchJob", "no upgrade x"]
    service.be(answers={"ListHistory": [rows]}, errors={"GetReport": gone})
    assert issu("report", "x") == (1, "", "issu: no upgrade x\n  the last ones: a, b\n")


def test_report_that_is_none(issu: Issu, service: Service) -> None:
    service.be(answers={"GetReport": ["{"]})
    done = issu("report")
    assert (done.status, "not JSON" in done.err, "Traceback" in done.err) == (1, True, False)


ROW = {
    "id": ID, "job": job(ID), "result": "accepted", "strategy": "live", "target": "/dev/sdb2",
    "outage_usec": 909_000,
}  # fmt: skip


def test_history(issu: Issu, service: Service) -> None:
    bad = {"id": "a", "job": job("a"), "result": "failed", "error": "two\nlines"}
    service.be(answers={"ListHistory": [[ROW, bad]]})
    lines = issu("history", "-n", "5").out.splitlines()
    assert lines[0].split() == ["ID", "RESULT", "STRATEGY", "TARGET", "OUTAGE", "ERROR"]
    assert lines[1].split() == [ID, "accepted", "live", "/dev/sdb2", "0.909", "s"]
    assert lines[2].split() == ["a", "failed", "-", "-", "-", "two", "lines"]
    bare = issu("history", "--no-legend").out.splitlines()
    assert [line.split() for line in bare] == [line.split() for line in lines[1:]]
    assert json.loads(issu("history", "--json").out) == [ROW, bad]
    assert [call[2] for call in service.calls()] == [5, 0, 0]
    assert issu("history", "-n", "-1").status == 2


@pytest.mark.parametrize("bus", ["none", "no-service"])
def test_the_files_answer_without_bus_or_service(
    issu: Issu, tmp_path_factory: pytest.TempPathFactory, bus: str
) -> None:
    from tests.bus import fake

    issu.report(ID)
    issu.report("20250101T000000_aaaa", result="failed", error="once")
    with fake.bus(tmp_path_factory.mktemp("empty")) as empty:
        address = empty if bus == "no-service" else "unix:path=/none"
        env = {"DBUS_SYSTEM_BUS_ADDRESS": address}
        assert json.loads(issu("report", "--json", **env).out)["id"] == ID
        assert issu("report", "20250101T000000_aaaa", **env).out.startswith("ISSU 2025")
        assert issu("report", "x", **env).status == 1
        assert issu("status", **env).out.startswith(f"{ID}: accepted")
        rows = json.loads(issu("history", "--json", **env).out)
        assert [row["id"] for row in rows] == [ID, "20250101T000000_aaaa"]
        assert rows[0]["job"] == job(ID)
        assert rows[0]["target"] == REPORT["target"]["device"]
        done = issu("start", TARGET, **env)
        assert (done.status, "systemctl start issu@" in done.err) == (1, True)


# --- inhibit ------------------------------------------------------------------------------------


def wait(condition: Any) -> None:
    deadline = time.monotonic() + END_SEC
    while not condition():
        assert time.monotonic() < deadline


def test_inhibit_holds_while_the_command_runs(issu: Issu, service: Service) -> None:
    argv = issu.argv("inhibit", "--who=me", "--why=a backup", "sh", "-c", "read x; exit 7")
    process = subprocess.Popen(
        argv, env=issu.environment(), stdin=subprocess.PIPE, cwd=ROOT, text=True
    )
    wait(lambda: service.calls("Inhibit"))
    assert service.held()
    process.communicate("\n", timeout=END_SEC)
    assert process.returncode == 7
    assert service.calls() == [["Inhibit", "/org/issu1", "me", "a backup"]]
    wait(lambda: not service.held())


def test_inhibit_ends_with_its_holder_though_the_command_lives(
    issu: Issu, service: Service
) -> None:
    """The command inherits no descriptor, so what it leaves behind forbids nothing."""
    done = issu("inhibit", "sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $!; ls /proc/self/fd")
    pid, *fds = done.out.split()
    try:
        assert done.status == 0
        assert {int(fd) for fd in fds} <= {0, 1, 2, 3}  # 3 is the directory that ls reads
        wait(lambda: not service.held())
        os.kill(int(pid), 0)
    finally:
        os.kill(int(pid), signal.SIGKILL)


def test_inhibit_passes_on_what_tells_it_to_end(issu: Issu, service: Service) -> None:
    process = issu.popen("inhibit", "sh", "-c", "echo up; exec sleep 600")
    assert process.stdout
    assert process.stdout.readline() == "up\n"
    assert service.held()
    process.terminate()
    assert process.wait(END_SEC) == 128 + signal.SIGTERM
    wait(lambda: not service.held())


def test_inhibit_leaves_ctrl_c_to_the_command(issu: Issu, service: Service) -> None:
    """Both have it from the terminal; the command that goes on is held for, and ends as it will."""
    trap = "trap 'echo heard' INT; echo up; read x; read x; exit 7"
    argv = issu.argv("inhibit", "bash", "-c", trap)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        argv, env=issu.environment(), stdin=pipe, stdout=pipe, cwd=ROOT, text=True,
        start_new_session=True, preexec_fn=heed_ctrl_c,
    ) as process:  # fmt: skip
        assert process.stdout
        assert process.stdin
        assert process.stdout.readline() == "up\n"
        os.killpg(process.pid, signal.SIGINT)
        process.stdin.write("\n\n")
        process.stdin.flush()
        assert process.stdout.readline() == "heard\n"
        assert process.wait(END_SEC) == 7


def test_inhibit_leaves_the_commands_own_words_alone(issu: Issu, service: Service) -> None:
    done = issu("inhibit", "--", "echo", "--json", "--list", "x")
    assert done == (0, "--json --list x\n", "")
    assert issu("inhibit", "echo", "--json", "x").out == "--json x\n"
    assert service.calls()[0][2:] == ["echo --json --list x", "no reason given"]


def test_inhibit_with_a_command_that_is_none(issu: Issu, service: Service) -> None:
    done = issu("inhibit", "no-such-command")
    assert done == (127, "", "issu: no-such-command: No such file or directory\n")
    assert issu("inhibit", "/etc").status == 126
    wait(lambda: not service.held())


@pytest.mark.parametrize("words", [[], ["--list", "true"]], ids=["neither", "both"])
def test_inhibit_wants_a_command_or_a_list(issu: Issu, service: Service, words: list[str]) -> None:
    done = issu("inhibit", *words)
    assert (done.status, done.out) == (2, "")
    assert service.calls() == []


def test_the_list_of_inhibitors(issu: Issu, service: Service) -> None:
    service.be(answers={"ListInhibitors": [[["me", "a backup", 0, 42]]]})
    assert issu("inhibit", "--list").out == "WHO  UID  PID  WHY\nme   0    42   a backup\n"
    assert issu("inhibit", "--list", "--no-legend").out == "me  0  42  a backup\n"
    row = {"who": "me", "why": "a backup", "uid": 0, "pid": 42}
    assert json.loads(issu("inhibit", "--list", "--json").out) == [row]
