"""The picture of a report: well-formed, self-contained, and every mark where its time says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from issu_systemd.gantt import AWAY, KEPT, LEFT, NEW_ROOT, RIGHT, SHADE, Axis, svg

from .test_timeline import ODD

DATA = Path(__file__).parent / "data"
NS = "{http://www.w3.org/2000/svg}"
SEC = 1_000_000
