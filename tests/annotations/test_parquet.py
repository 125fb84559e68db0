"""Parquet of other programs, and ours as they read it."""

import pytest
from labels_made import EVENTS, TRYING_EVENTS, as_read, write

from htsat_sed.annotations import read_events, write_events
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError


def test_pandas_reads_our_parquet(tmp_path):
    import pandas as pd

    write_events(tmp_path / "e.parquet", {"a\udcff.wav": EVENTS[:1], "silence.wav": []}, "parquet")
    table = pd.read_parquet(tmp_path / "e.parquet")
    assert list(table) == ["filename", "onset", "offset", "event_label", "score"]
    assert table.iloc[0].tolist() == ["a\\udcff.wav", 0.3125, 1.25, "Speech", 0.9312]
    assert table.iloc[1].isna().tolist() == [False, True, True, True, True]


def test_trying_events_through_pandas(tmp_path):
    import pandas as pd

    write_events(tmp_path / "e.parquet", {"a": TRYING_EVENTS, "silence": []}, "parquet")
    pd.read_parquet(tmp_path / "e.parquet").to_parquet(tmp_path / "again.parquet")
    assert read_events(tmp_path / "again.parquet") == {"a": as_read(TRYING_EVENTS), "silence": []}


def test_parquet_by_pandas(tmp_path):
    import pandas as pd

    rows = {"event_label": ["Dog"], "onset": [1], "offset": [2.5], "filename": ["a.wav"], "more": [7]}
    pd.DataFrame(rows).to_parquet(tmp_path / "e.parquet")
    assert read_events(tmp_path / "e.parquet") == {"a.wav": [Event(1.0, 2.5, "Dog")]}
    pd.DataFrame(rows | {"onset": [None]}).to_parquet(tmp_path / "e.parquet")
    with pytest.raises(AnnotationError, match="line 1: wanted seconds of 0 or more and a label"):
        read_events(tmp_path / "e.parquet")
    pd.DataFrame(rows | {"score": ["x"]}).to_parquet(tmp_path / "e.parquet")
    with pytest.raises(AnnotationError, match="line 1: score is no number: 'x'"):
        read_events(tmp_path / "e.parquet")
    pd.DataFrame({"filename": ["a.wav"]}).to_parquet(tmp_path / "e.parquet")
    with pytest.raises(
        AnnotationError, match="lacks the columns onset, offset, event_label; it has filename"
    ):
        read_events(tmp_path / "e.parquet")


def test_a_broken_parquet_file_is_an_error(tmp_path):
    with pytest.raises(AnnotationError, match="cannot be read"):
        read_events(write(tmp_path / "e.parquet", b"PAR1 and no more"))
