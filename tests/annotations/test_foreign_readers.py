"""What is written in each format is read by a program that did not write it."""

import importlib
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from htsat_sed.annotations import FORMATS, read_events, write_events
from htsat_sed.detection.events import Event

# Deprecations inside the other programs are theirs.
pytestmark = pytest.mark.filterwarnings("default")

TABLE = {
    "day1/a.wav": [
        Event(0.25, 1.5, "Dog", 0.75, 1),
        Event(0.5, 1.25, "Dog", 0.5, 2),
        Event(2.0, 3.0, "Rain - heavy", 0.25, 2),
    ],
    "silence.wav": [],
    "day1/b.wav": [Event(0.125, 1.0, "Cat", 0.875, 1)],
}
DURATIONS = {"day1/a.wav": 10.0, "silence.wav": 5.0, "day1/b.wav": 2.5}
TIMES = [(name, e.onset, e.offset, e.label) for name, own in TABLE.items() for e in own]
SCORES = [e.score for own in TABLE.values() for e in own]
CHANNELS = [e.channel for own in TABLE.values() for e in own]


@pytest.fixture
def without_package(monkeypatch):
    """Imports a module of an installed package without running the packages around it, which need TensorFlow."""

    def load(name):
        package, *parts = name.split(".")
        spec = importlib.util.find_spec(package)
        if spec is None:
            pytest.skip(f"{package} is not installed (pip install --no-deps {package.replace('_', '-')})")
        for depth in range(len(parts)):
            around = ModuleType(".".join([package, *parts[:depth]]))
            around.__path__ = ["/".join([place, *parts[:depth]]) for place in spec.submodule_search_locations]
            monkeypatch.setitem(sys.modules, around.__name__, around)
        before = set(sys.modules)
        found = importlib.import_module(name)
        for new in set(sys.modules) - before:
            if new.startswith(f"{package}."):
                monkeypatch.setitem(sys.modules, new, sys.modules[new])
        return found

    return load


def written(folder, format):
    """A table of all recordings, or the folder of one file a recording."""
    of = FORMATS[format]
    path = folder / f"events{of.suffix}" if of.shared else folder
    write_events(path, TABLE, format, durations=DURATIONS)
    return path


def of_each(folder, format, read):
    """Rows of one file a recording, read by a function from its path."""
    path = written(folder, format)
    return [(name, *row) for name in TABLE for row in read(str(path / f"{name}{FORMATS[format].suffix}"))]


def test_pandas_reads_the_tables(tmp_path):
    for format, separator in (("tsv", "\t"), ("csv", ","), ("parquet", None)):
        path = written(tmp_path, format)
        if separator is None:
            pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
        frame = pd.read_csv(path, sep=separator) if separator else pd.read_parquet(path)
        assert sorted(set(frame.filename)) == sorted(TABLE)
        frame = frame.dropna(subset=["onset"])
        names = ["filename", "onset", "offset", "event_label"]
        assert list(frame[names].itertuples(index=False, name=None)) == TIMES
        assert list(frame.channel) == CHANNELS
        if format != "tsv":
            assert list(frame.score) == SCORES


def test_pandas_reads_json_lines(tmp_path):
    frame = pd.read_json(written(tmp_path, "jsonl"), lines=True)
    assert dict(zip(frame.filename, frame.duration, strict=True)) == DURATIONS
    found = [(r.filename, e) for r in frame.itertuples() for e in r.events]
    assert [(name, e["onset"], e["offset"], e["label"]) for name, e in found] == TIMES
    assert [e["score"] for _, e in found] == SCORES
    assert [e["channel"] for _, e in found] == CHANNELS


def test_audiosets_table_has_its_columns_and_codes(tmp_path):
    """As the published audioset_train_strong.tsv: tabs, this header, times with 3 decimals, MIDs."""
    header, *rows = written(tmp_path, "audioset").read_text().splitlines()
    assert header == "segment_id\tstart_time_seconds\tend_time_seconds\tlabel"
    assert rows[0] == "day1/a.wav\t0.250\t1.500\t/m/0bt9lr"
    assert rows[3] == "day1/b.wav\t0.125\t1.000\t/m/01yrx"


def test_koogu_reads_label_tracks_of_audacity(tmp_path, without_package):
    reader = without_package("koogu.data.annotations").Audacity.Reader()
    assert of_each(tmp_path, "audacity", lambda path: rows_of(reader(path))) == TIMES


def test_koogu_reads_raven_tables(tmp_path, without_package):
    reader = without_package("koogu.data.annotations").Raven.Reader(label_column_name="Annotation")
    assert of_each(tmp_path, "raven", lambda path: rows_of(reader(path))) == TIMES
    times, _, labels, channels, files = reader(str(written(tmp_path, "raven-folder")), multi_file=True)
    assert [
        (f"day1/{name}", *time, label) for name, time, label in zip(files, times, labels, strict=True)
    ] == [(name, pytest.approx(onset), pytest.approx(offset), label) for name, onset, offset, label in TIMES]
    assert [channel + 1 for channel in channels] == CHANNELS  # koogu counts from 0


def rows_of(found):
    times, _, labels, _, _ = found
    return [(*time, label) for time, label in zip(times, labels, strict=True)]


def test_koogu_reads_layers_of_sonic_visualiser(tmp_path, without_package):
    reader = without_package("koogu.data.annotations").SonicVisualiser.Reader()
    found = of_each(tmp_path, "sonic-visualiser", lambda path: rows_of(reader(path)))
    assert [(name, round(onset, 3), round(offset, 3), label) for name, onset, offset, label in found] == TIMES


def test_crowsetta_reads_raven_tables(tmp_path):
    raven = crowsetta().formats.bbox.Raven

    def read(path):
        if "silence" in path:  # crowsetta refuses tables without selections
            return []
        boxes = raven.from_file(path, annot_col="Annotation").to_bbox()
        return [(box.onset, box.offset, box.label) for box in boxes]

    assert of_each(tmp_path, "raven", read) == TIMES


def test_crowsetta_reads_its_tables(tmp_path):
    loaded = crowsetta().formats.seq.GenericSeq.from_file(written(tmp_path, "crowsetta")).to_annot()
    found = [
        (str(each.notated_path), s.onset_s, s.offset_s, s.label) for each in loaded for s in each.seq.segments
    ]
    assert found == TIMES


def crowsetta():
    return pytest.importorskip("crowsetta", reason="the extra test is not installed")


def test_opensoundscape_reads_the_raven_table_of_a_folder(tmp_path, without_package):
    boxes = without_package("opensoundscape.annotations").BoxedAnnotations
    frame = boxes.from_raven_files([written(tmp_path, "raven-folder")], "Annotation").df
    assert list(zip(frame["Begin Path"], frame["File Offset (s)"], frame.annotation, strict=True)) == [
        (name, onset, label) for name, onset, _, label in TIMES
    ]
    assert list(frame.end_time - frame.start_time) == pytest.approx(
        [end - onset for _, onset, end, _ in TIMES]
    )
    assert list(frame.Channel) == CHANNELS
    assert list(frame.Score) == SCORES


def test_birdnet_analyzer_reads_kaleidoscope_tables(tmp_path, without_package):
    pytest.importorskip("librosa", reason="the extra reference is not installed")
    utils = without_package("birdnet_analyzer.segments.utils")
    found = utils.find_segments_from_combined(str(written(tmp_path, "kaleidoscope")))
    assert [(each["audio"], each["start"], each["end"], each["species"]) for each in found] == TIMES
    assert [each["confidence"] for each in found] == SCORES


def test_pympi_reads_elan_documents(tmp_path):
    eaf = pytest.importorskip("pympi.Elan", reason="the extra test is not installed").Eaf

    def read(path):
        document = eaf(path)
        tiers = [document.get_annotation_data_for_tier(name) for name in document.get_tier_names()]
        return sorted((onset / 1000, offset / 1000, label) for tier in tiers for onset, offset, label in tier)

    assert of_each(tmp_path, "elan", read) == TIMES


def test_praatio_reads_textgrids(tmp_path):
    textgrid = pytest.importorskip("praatio.textgrid", reason="the extra test is not installed")

    def read(path):
        grid = textgrid.openTextgrid(path, includeEmptyIntervals=False)
        return sorted(tuple(entry) for tier in grid.tiers for entry in tier.entries)

    assert of_each(tmp_path, "textgrid", read) == TIMES


def test_webvtt_py_reads_captions(tmp_path):
    webvtt = pytest.importorskip("webvtt", reason="the extra test is not installed")

    def read(path):
        cues = webvtt.read(path)
        return [(cue.start_in_seconds, cue.end_in_seconds, cue.text) for cue in cues]

    seconds = [(name, int(onset), int(offset), label) for name, onset, offset, label in TIMES]
    found = of_each(tmp_path, "webvtt", read)
    assert [(name, int(onset), int(offset), label) for name, onset, offset, label in found] == seconds


def test_pyannote_reads_rttm(tmp_path):
    util = pytest.importorskip("pyannote.database.util", reason="the extra test is not installed")
    loaded = util.load_rttm(written(tmp_path, "rttm"))
    found = [
        (name, round(segment.start, 3), round(segment.end, 3), label.replace("\\u0020", " "))
        for name in TABLE
        if name in loaded
        for segment, _, label in loaded[name].itertracks(yield_label=True)
    ]
    assert sorted(found) == sorted(TIMES)


CONFIG = (
    '<View><Audio name="audio" value="$audio"/>'
    '<Labels name="label" toName="audio"><Label value="Dog"/></Labels></View>'
)


def test_label_studios_converter_reads_tasks(tmp_path):
    converter = pytest.importorskip(
        "label_studio_sdk.converter", reason="label-studio-sdk brings many libraries"
    )
    path = written(tmp_path, "label-studio")
    made = converter.Converter(CONFIG, str(tmp_path))
    made.convert_to_json_min(str(path), str(tmp_path / "min"), is_dir=False)
    tasks = json.loads((tmp_path / "min" / "result.json").read_text())
    regions = [(task["audio"], region) for task in tasks for region in task.get("label", [])]
    assert [(name, r["start"], r["end"], r["labels"]) for name, r in regions] == [
        (name, onset, offset, [label]) for name, onset, offset, label in TIMES
    ]
    assert [r["channel"] + 1 for _, r in regions] == CHANNELS
    assert read_events(tmp_path / "min" / "result.json")["day1/b.wav"] == [Event(0.125, 1.0, "Cat", 1.0, 1)]


def test_every_format_has_a_foreign_reader():
    """The formats that the tests of this module write."""
    source = Path(__file__).read_text(encoding="utf-8")
    assert [format for format in FORMATS if f'"{format}"' not in source] == []
