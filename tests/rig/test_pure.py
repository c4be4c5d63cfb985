"""What the rig computes without a machine."""

import dataclasses
import json
import time
from pathlib import Path

import pytest

from tests.rig import cache, inroot, sh, wait
from tests.rig.outage import Answer, Gap, Observed, gaps
from tests.rig.prober import Log
from tests.rig.services import Dns, Http, Service, Tcp, Wrong, parse

pytestmark = pytest.mark.unit


def test_no_failure_is_no_outage() -> None:
    assert gaps([10, 20, 500], [], 0, 600) == ()


def test_log_of_a_slow_service() -> None:
    log = Log(Tcp("192.0.2.2", 7777), 0)
    for text, now in [("old", 10), ("old", 20), ("new", 500), ("new", 505)]:
        log.answered(text, now)
    seen = log.observed(600)
    assert seen.outages == ()
    assert seen.spacing_usec == 480
    assert seen.answers == (Answer("old", 10, 20, 2), Answer("new", 500, 505, 2))


def test_observed_round_trip() -> None:
    log = Log(Tcp("192.0.2.2", 7777), 0)
    log.answered("old", 10)
    log.failure(15, "refused")
    log.answered("old", 20)
    seen = log.observed(600)
    assert seen.longest_usec == seen.total_usec == 10
    assert Observed.from_json(json.loads(json.dumps(dataclasses.asdict(seen)))) == seen


def test_outage_lasts_from_good_to_good() -> None:
    assert gaps([10, 20, 80, 90], [25, 30, 70], 0, 100) == (Gap(20, 80),)


def test_late_failure_belongs_to_the_outage_it_was_sent_into() -> None:
    """An attempt of 25 that timed out at 85, when the service was back, is not a second outage."""
    assert gaps([10, 20, 80, 82, 90], [25], 0, 100) == (Gap(20, 80),)


def test_outages_apart_stay_apart() -> None:
    assert gaps([10, 30, 50], [12, 35, 40], 0, 60) == (Gap(10, 30), Gap(30, 50))


def test_outage_at_the_edges_of_the_observation() -> None:
    assert gaps([50], [5, 60], 0, 100) == (Gap(0, 50), Gap(50, 100))
    assert gaps([], [5], 0, 100) == (Gap(0, 100),)


@pytest.mark.parametrize(
    "service", [Tcp("192.0.2.2", 7777), Http("2001:db8::2"), Dns("192.0.2.2", 53, "issu.test")]
)
def test_spec_round_trip(service: Service) -> None:
    assert parse(service.spec()) == service


def test_spec_unknown() -> None:
    with pytest.raises(ValueError, match="gopher"):
        parse("gopher,192.0.2.2,70")


def test_http_answer() -> None:
    service = Http("192.0.2.2")
    head = b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: now\r\n"
    assert service.answer(head) is None
    assert service.answer(head + b"\r\nbody") == "200 nginx/1.22.1"
    with pytest.raises(Wrong, match="502"):
        service.answer(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")


def test_dns_answer() -> None:
    service = Dns("192.0.2.2", 53, "issu.test")
    question = service.request()[12:]
    record = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4\xc0\0\2\1"
    assert service.answer(b"\x15\x51\x85\x80\0\1\0\1\0\0\0\0" + question + record) == "192.0.2.1"
    with pytest.raises(Wrong, match="0x8183"):  # NXDOMAIN
        service.answer(b"\x15\x51\x81\x83\0\1\0\0\0\0\0\0" + question)


@pytest.mark.parametrize(
    ("path", "leads_to"),
    [
        ("/etc/absolute", "usr/lib/file"),
        ("/etc/relative", "usr/lib/file"),
        ("/lib/file", "usr/lib/file"),
        ("/etc/../../../lib/../lib/file", "usr/lib/file"),
        ("/etc/missing/x", "etc/missing/x"),
        ("/", ""),
    ],
)
def test_path_stays_in_its_root(tmp_path: Path, path: str, leads_to: str) -> None:
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "etc/absolute").symlink_to("/usr/lib/file")
    (tmp_path / "etc/relative").symlink_to("../../../usr/lib/file")
    assert inroot.resolve(tmp_path, path) == tmp_path / leads_to
    link = inroot.resolve(tmp_path, "/etc/absolute", follow=False)
    assert link == tmp_path / "etc/absolute"


def test_path_in_circles(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("/a")
    with pytest.raises(OSError, match="symbolic links"):
        inroot.resolve(tmp_path, "/a/b")


def test_command_error_names_command_and_output() -> None:
    with pytest.raises(sh.CommandError, match=r"'echo gone >&2; exit 3': exit status 3\ngone"):
        sh.run(["sh", "-c", "echo gone >&2; exit 3"])


def test_timeout_kills_grandchildren_too(tmp_path: Path) -> None:
    script = 'sleep 30 & echo $! > "$1"; wait'
    begin = time.monotonic()
    with pytest.raises(sh.CommandError, match="not ended after"):
        sh.run(["sh", "-c", script, "sh", tmp_path / "pid"], timeout=0.3)
    assert time.monotonic() - begin < 10
    pid = (tmp_path / "pid").read_text().strip()

    def gone() -> bool:
        state = Path(f"/proc/{pid}/stat")
        return not state.exists() or ") Z " in state.read_text()

    wait.until(gone, 5, "the grandchild is dead")


def test_wait_names_what_it_waited_for() -> None:
    with pytest.raises(wait.Timeout, match=r"not within 0 s: doomsday: sunny"):
        wait.until(lambda: False, 0, "doomsday", detail=lambda: "sunny")
    assert wait.until(lambda: "now", 0, "now") == "now"


def test_cache_builds_once_and_never_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISSU_CACHE", str(tmp_path))
    built: list[Path] = []

    def fails(part: Path) -> None:
        part.write_text("half")
        raise RuntimeError("power cut")

    def works(part: Path) -> None:
        built.append(part)
        part.write_text("whole")

    with pytest.raises(RuntimeError, match="power cut"):
        cache.entry("thing-1", fails)
    assert [p.name for p in tmp_path.iterdir()] == ["thing-1.lock"]
    assert cache.entry("thing-1", works).read_text() == "whole"
    assert cache.entry("thing-1", works).read_text() == "whole"
    assert len(built) == 1


def test_cache_keeps_the_newest_of_a_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISSU_CACHE", str(tmp_path))
    cache.entry("other-0", Path.mkdir)
    for n in range(cache.KEEP + 2):
        cache.entry(f"thing-{n}", Path.touch)
    kept = {"other-0"} | {f"thing-{n}" for n in range(2, cache.KEEP + 2)}
    assert {p.name for p in tmp_path.iterdir()} == kept | {f"{name}.lock" for name in kept}


def test_cache_drops_nothing_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISSU_CACHE", str(tmp_path))
    oldest = cache.entry("thing-0", Path.touch)
    with cache.locked(oldest, shared=True):
        for n in range(1, cache.KEEP + 2):
            cache.entry(f"thing-{n}", Path.touch)
        assert oldest.exists()
        assert not (tmp_path / "thing-1").exists()


def test_second_process_waits_for_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISSU_CACHE", str(tmp_path))
    path, marker = tmp_path / "thing-1", tmp_path / "held"
    script = 'touch "$2"; sleep 0.3; echo first > "$1"'
    lock = f"{path}.lock"
    first = sh.popen(["flock", lock, "sh", "-c", script, "sh", path, marker])
    wait.until(marker.exists, 5, "the first process has the lock")

    def second(part: Path) -> None:
        part.write_text("second")

    assert cache.entry("thing-1", second).read_text() == "first\n"
    first.communicate()
