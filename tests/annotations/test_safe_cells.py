"""`--safe-cells`: names and labels that a spreadsheet would run as formulas."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from htsat_sed.annotations import FORMATS, long_rows, read_tags, tags_header, wide_row, write_table
from htsat_sed.annotations.delimited import row
from htsat_sed.detection.events import Event
from htsat_sed.labels import normal
from htsat_sed.model.checkpoint import save_checkpoint
from htsat_sed.model.htsat import HTSAT, HTSATConfig
from htsat_sed.runs.failures import read_defects, write_failures

FORMULAS = ["=1+1", "+1", "-a", "@SUM(A1)", " =1", "\t=1", "\r-", "\n+", "\uff1d1", "'=1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_an_apostrophe_stands_before_formulas(text: str) -> None:
    ((cell, other),) = csv.reader([row([text, "a=1"], ",", safe_cells=True)])
    assert (cell[0], other) == ("'", "a=1")


def test_plain_texts_stay_as_they_are() -> None:
    cells = ["a", "", "1-2", "'tis", "0.5", "a=b", "Baby cry, infant cry"]
    assert row(cells, ",", safe_cells=True) == row(cells, ",")


TEXTS = st.text(st.sampled_from("'=+-@ \t\r\na,\""), min_size=1, max_size=5).filter(lambda text: text.strip())


@given(
    st.lists(TEXTS, min_size=1, max_size=3, unique_by=normal),
    TEXTS,
    st.booleans(),
    st.sampled_from(["tsv", "csv"]),
)
def test_readers_give_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, labels: list[str], name: str, safe: bool, form: str
) -> None:
    folder = tmp_path_factory.mktemp("tables")
    events = [Event(float(i), i + 1.0, label) for i, label in enumerate(labels)]
    write_table(folder / "events", [(name, events, None)], form, safe_cells=safe)
    read = FORMATS[form].read(folder / "events")
    assert {key: [event.label for event in own] for key, own in read.items()} == {
        name: [label.strip() for label in labels]
    }
    scores = np.full(len(labels), 0.5, np.float32)
    long = tags_header(safe_cells=safe) + long_rows(name, scores, labels, safe_cells=safe)
    wide = tags_header(labels, safe_cells=safe) + wide_row(name, scores, safe_cells=safe)
    for table in (long, wide):
        (folder / "tags").write_bytes(table.encode())
        assert read_tags(folder / "tags") == {name: {label.strip(): 0.5 for label in labels}}
    write_failures(folder / "failures", [(name, "=gone")], [(name, "cut off")], safe_cells=safe)
    assert read_defects(folder / "failures") == {name: "cut off"}


def test_commands(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = HTSATConfig(classes=2, embed_dim=16, depths=(1, 1, 1, 1), heads=(1, 2, 2, 4))
    save_checkpoint("tiny.safetensors", HTSAT(config, ("=Dog", "Cat")))
    Path("audio").mkdir()
    samples = np.random.default_rng(0).normal(0.0, 0.1, 16_000)
    for name in ("=1.wav", "@2.wav"):
        soundfile.write(f"audio/{name}", samples, 32_000)
    Path("audio/-bad.wav").write_bytes(b"no sound")
    model = ("-c", "tiny.safetensors", "--safe-cells")
    assert run("detect", "audio", *model, "--threshold", "0", "-o", "events.csv")[0] == 1
    assert run("tag", "audio", *model, "--wide", "-o", "tags.tsv")[0] == 1
    assert run("segments", "events.csv", "-a", "audio", "-o", "clips", "--safe-cells")[0] == 0
    printed = run("detect", "audio/=1.wav", *model, "--threshold", "0", "-f", "csv")[1]
    Path("printed.csv").write_text(printed)
    written = ["events.csv", "events.csv.failures.csv", "tags.tsv", "clips/clips.csv", "printed.csv"]
    for file in map(Path, written):
        rows = csv.reader(file.read_text().splitlines(), delimiter="\t" if file.suffix == ".tsv" else ",")
        first = {cell[:1] for cells in rows for cell in cells}
        assert "'" in first, file
        assert not first & set("=+-@"), file
    assert set(read_tags("tags.tsv")) == {"=1.wav", "@2.wav"}
    index = FORMATS["csv"].read(Path("clips/clips.csv"))
    assert {event.label for own in index.values() for event in own} == {"=Dog", "Cat"}
