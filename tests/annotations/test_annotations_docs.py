"""docs/formats.md shows what the program writes."""

import re
from pathlib import Path

import numpy as np
import pytest

from htsat_sed.annotations import FORMATS, long_rows, tags_header, wide_row, write_events, write_presence_map
from htsat_sed.detection.events import Event
from htsat_sed.detection.presence import PresenceMap

DOCS = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", DOCS, re.DOTALL)
STREET = [Event(0.3125, 1.25, "Speech", 0.93117), Event(2.0, 3.75, "Dog", 0.5)]


@pytest.mark.parametrize("format", sorted(set(FORMATS) - {"parquet"}))
def test_the_example_of_every_format(format, tmp_path):
    of = FORMATS[format]
    table = {"street.wav": STREET} | ({"silence.wav": []} if of.shared else {})
    path = tmp_path / f"events{of.suffix}"
    write_events(path, table, format, durations={"street.wav": 65.0, "silence.wav": 10.0})
    assert ("text", path.read_text()) in BLOCKS


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_every_format_has_its_row(format):
    assert re.search(rf"^\| \[`{format}`\].* \| `{re.escape(FORMATS[format].suffix)}` \|", DOCS, re.MULTILINE)


def test_the_example_of_clip_level_scores():
    scores = np.array([0.03125, 0.931204])
    for text in (
        tags_header() + long_rows("street.wav", scores, ["Dog", "Speech"]),
        tags_header(["Dog", "Speech"]) + wide_row("street.wav", scores),
    ):
        assert ("text", text) in BLOCKS


def test_the_lines_that_read_a_presence_map(tmp_path, monkeypatch):
    presence_map = PresenceMap(
        np.array([[0.5, 0.25], [0.0, 1.0]], np.float32), ("Dog", "Speech"), 0.3125, 0.6
    )
    write_presence_map(tmp_path / "street.wav.npz", presence_map, filename="street.wav")
    monkeypatch.chdir(tmp_path)
    (code,) = (text for language, text in BLOCKS if language == "python")
    names = {}
    exec(code, names)
    assert names["speech"].tolist() == [[0.25], [1.0]]
    assert names["onsets"].tolist() == [0.0, 0.3125]
