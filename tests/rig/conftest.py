"""Fixtures of the rig's own tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig import roots, traces


@pytest.fixture
def images() -> Iterator[Path]:
    with traces.workspace() as top:
        yield top
    assert traces.traces(os.getpid()) == []


@pytest.fixture(params=roots.SUITES)
def suite(request: pytest.FixtureRequest) -> str:
    return str(request.param)
