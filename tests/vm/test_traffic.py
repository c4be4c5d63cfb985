"""The traffic tester itself, against a stand-in for the element that passes frames on."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.rig import sh, traces, wait

from . import figures, frames, picture, traffic

Pass = Callable[[int, bytes], list[bytes]]


@contextmanager
def element(work: Path, forward: Pass) -> Iterator[None]:
    """Two ports; what comes by one goes out of the other as `forward` says."""
    ports = [socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in (0, 1)]
    for index, port in enumerate(ports):
        port.bind(str(work / f"element{index}"))
        port.settimeout(0.05)
    ended = threading.Event()

    def run(index: int) -> None:
        count = 0
        while not ended.is_set():
            try:
                frame = ports[index].recv(2048)
            except TimeoutError:
                continue
            count += 1
            for copy in forward(count, frame):
                ports[1 - index].sendto(copy, str(work / f"tester{1 - index}"))

    threads = [threading.Thread(target=run, args=(index,)) for index in (0, 1)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        for port in ports:
            port.close()


def measure(forward: Pass) -> dict[str, Any]:
    """What the tester says of such an element, once some hundred frames have gone."""
    with traces.workspace() as work, element(work, forward):
        argv = [sys.executable, "-m", "tests.vm.traffic", str(work), "2000", "0"]
        tester = sh.popen(argv, stdin=subprocess.PIPE)
        try:
            assert tester.stdout and tester.stdin
            assert tester.stdout.readline() == "ready\n", tester.communicate()[1]
            wait.until(lambda: Path(f"/proc/{tester.pid}/stat").exists(), 1, "it runs")
            with pytest.raises(subprocess.TimeoutExpired):
                tester.wait(0.5)
            tester.stdin.close()
            tester.stdin = None
            out, error = tester.communicate(timeout=60)
        finally:
            sh.kill(tester)
    assert tester.returncode == 0, error
    found: dict[str, Any] = json.loads(out)
    return found


def test_a_good_element_loses_nothing() -> None:
    seen = measure(lambda _, frame: [frame])
    assert figures.sent(seen) > 200
    assert figures.lost(seen) == figures.duplicates(seen) == 0
    assert figures.longest_gap(seen) > 0
    assert sum(seen["bins"]) == figures.sent(seen) + figures.leaked(seen)
    assert figures.leaked(seen) > 0  # it has no firewall


def test_lost_frames_are_counted() -> None:
    seen = measure(lambda count, frame: [frame] if count % 10 else [])
    assert figures.sent(seen) / 20 < figures.lost(seen) < figures.sent(seen) / 5
    assert figures.lost_msec(seen, 100) == figures.lost(seen) * 10


def test_an_end_without_an_answer_is_a_gap() -> None:
    """It is not known how long it would have gone on; so long it has."""
    good = measure(lambda _, frame: [frame])
    seen = measure(lambda count, frame: [frame] if count < 100 else [])
    assert figures.longest_gap(seen) > 200_000 > figures.longest_gap(good)  # of 500 ms


def test_duplicates_are_counted_and_no_frame_stands_for_another() -> None:
    seen = measure(lambda count, frame: [frame, frame] if count % 10 else [])
    assert figures.duplicates(seen) > figures.sent(seen) / 2
    assert figures.lost(seen) > figures.sent(seen) / 20


@pytest.mark.parametrize("v6", [False, True])
@pytest.mark.parametrize("size", traffic.SIZES)
def test_frames(size: int, *, v6: bool) -> None:
    frame = frames.numbered(*traffic.ENDS, 3, 77, size, v6=v6, port=frames.PORT)
    least = 14 + (40 if v6 else 20) + 8 + frames.NUMBER.size
    assert len(frame) == max(size - frames.FCS, least)
    assert frames.number_of(frame) == (3, 77)
    packet = frame[14:]
    head = 40 if v6 else 20
    addresses = packet[8:40] if v6 else packet[12:20]
    if not v6:
        assert frames.checksum(packet[:20]) == 0
    pseudo = addresses + (17).to_bytes(2) + len(packet[head:]).to_bytes(4)
    assert frames.checksum(pseudo + packet[head:]) == 0
    assert frames.checksum(pseudo + packet[head:-1] + b"\x01") != 0


def test_what_is_not_ours_is_not_counted() -> None:
    frame = frames.numbered(*traffic.ENDS, 0, 1, 64, v6=False, port=frames.PORT)
    for other in (
        b"",
        frame[:30],
        frame[:12] + b"\x08\x06" + frame[14:],
        frame.replace(b"ISSU", b"NOPE"),
    ):
        assert frames.number_of(other) is None


def test_knock_and_answer() -> None:
    knock = frames.knock(traffic.ENDS[0], traffic.ELEMENT, 20001, 22, frames.SYN, 7)
    assert frames.answer(knock) == (22, frames.SYN)
    assert frames.answer(knock[:40]) is None
    knocks = traffic.Knocks(22)
    assert knocks.due(0) and not knocks.due(1)
    refused = frames.knock(traffic.ENDS[0], traffic.ELEMENT, 22, 20001, frames.RST, 7)
    assert knocks.take(refused, 5) is None and knocks.refused == 1
    taken = frames.knock(traffic.ENDS[0], traffic.ELEMENT, 22, 20001, frames.SYN | frames.ACK, 7)
    assert knocks.take(taken, 10) and knocks.take(taken, 1010)
    assert knocks.longest_gap == 1000


def test_picture() -> None:
    bins = [5] * 500
    drawn = picture.svg({"a <b>": bins, "none": []})
    assert picture.svg({"a": [*bins, *[9] * 10]}) != picture.svg({"a": [*bins, *[7] * 10]})
    assert picture.svg({"a": [*bins, *[99] * 10]}) == picture.svg({"a": [*bins, *[77] * 10]})
    assert "a &lt;b&gt;" in drawn and drawn.count("<polygon") == 2
