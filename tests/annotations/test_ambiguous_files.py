"""Label files that are well formed but say two things, or nothing that can be read: refused in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from htsat_sed.annotations import read_events
from htsat_sed.annotations.recorded import read_recorded
from htsat_sed.errors import AnnotationError

HEADER = "filename\tonset\toffset\tevent_label\n"
ROW = "yard.wav\t0\t1\tDog\n"
EAF = """<ANNOTATION_DOCUMENT><HEADER TIME_UNITS="{unit}"/><TIME_ORDER>
<TIME_SLOT TIME_SLOT_ID="a" TIME_VALUE="0"/><TIME_SLOT TIME_SLOT_ID="b" TIME_VALUE="25"/></TIME_ORDER>
<TIER TIER_ID="Dog"><ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="x" TIME_SLOT_REF1="a" TIME_SLOT_REF2="b">
<ANNOTATION_VALUE>Dog</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION></TIER></ANNOTATION_DOCUMENT>"""
SVL = """<sv><data><model id="1" sampleRate="{rate}" dataset="0"/><dataset id="0" dimensions="2">
<point frame="0" value="1" duration="100" label="Dog"/></dataset></data></sv>"""
GRID = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n10\n<exists>\n{tiers}\n'
GRID += '"IntervalTier"\n"Dog"\n0\n10\n{intervals}\n0\n1\n"Dog"\n'
REGION = {"type": "labels", "value": {"start": 0, "end": 1, "labels": [["Dog"]]}}
TASK = {"data": {"audio": "yard.wav"}, "annotations": [{"result": [REGION]}]}

CASES = {
    "column twice": (
        "a.csv",
        "filename,onset,onset,offset,event_label\na.wav,0,5,9,Dog\n",
        "has the column onset twice",
    ),
    "frames": ("a.wav.eaf", EAF.format(unit="PAL-frames"), "has times in PAL-frames, wanted milliseconds"),
    "no rate": ("a.wav.svl", SVL.format(rate=0), "has the sample rate 0"),
    "list as label": (
        "a.labelstudio.json",
        json.dumps([TASK]),
        r"task 1: wanted labels of text, got \['Dog'\]",
    ),
    "no annotations": (
        "b.labelstudio.json",
        '[{"data": {"audio": "a.wav"}, "annotations": "x"}]',
        "task 1 has no recording, or no regions",
    ),
    "nested": ("c.labelstudio.json", "[" * 100_000, "nested too deeply"),
    "tiers below zero": ("a.TextGrid", GRID.format(tiers=-1, intervals=1), "got -1"),
    "intervals below zero": ("b.TextGrid", GRID.format(tiers=1, intervals=-1), "got -1"),
    "intervals without end": ("c.TextGrid", GRID.format(tiers=1, intervals="9" * 5000), "wanted a number of"),
    "binary": ("d.TextGrid", "ooBinaryFile\x08TextGrid\0\0", "save it as a text file"),
    "UTF-16 without mark": ("a.tsv", (HEADER + ROW).encode("utf-16-le"), "save it as UTF-8"),
    "UTF-32": ("b.tsv", (HEADER + ROW).encode("utf-32"), "save it as UTF-8"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused_in_one_line(case: str, tmp_path: Path) -> None:
    name, content, message = CASES[case]
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(AnnotationError, match=message) as caught:
        read_events(path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize("suffix", [".eaf", ".svl"])
def test_a_broken_file_of_a_folder_is_not_left_out(suffix: str, tmp_path: Path) -> None:
    good = EAF.format(unit="milliseconds") if suffix == ".eaf" else SVL.format(rate=44_100)
    (tmp_path / f"a.wav{suffix}").write_text(good)
    assert list(read_events(tmp_path)) == ["a.wav"]
    (tmp_path / f"b.wav{suffix}").write_text("<html>" + " " * 5000)
    with pytest.raises(AnnotationError, match=r"b\.wav"):
        read_events(tmp_path)


def test_a_clock_time_with_an_onset_that_is_no_number(tmp_path: Path) -> None:
    row = {"filename": "a.wav", "begin": "2026-05-12T04:30:00", "onset": [1], "events": []}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(AnnotationError, match=r"a\.jsonl: line 1: "):
        read_recorded(tmp_path / "a.jsonl")
