"""Images of a test lie where the rig keeps them: in memory if there is room, swept afterwards."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.rig import traces


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory for the images of one test."""
    with traces.workspace() as work:
        yield work
