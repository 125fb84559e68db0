"""Formats of other programs: read by those programs, and what they write read by us."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from labels_made import TRYING_EVENTS, as_read, write

from htsat_sed.annotations import FORMATS, read_events, write_events
from htsat_sed.clock import Start, parse_time
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError, UsageError

STEREO = [
    Event(0.25, 1.5, "Dog", 0.75, 1),
    Event(0.5, 1.25, "Dog", 0.5, 2),
    Event(2, 3, "Rain, heavy", 0.25, 2),
]
TABLE = {"day1/a.wav": STEREO, "silence.wav": [], "day1/b.wav": [Event(0.5, 1, "Cat", 1.0, 1)]}
DURATIONS = {"day1/a.wav": 10.0, "silence.wav": 5.0, "day1/b.wav": 2.5}
# Times between the milliseconds, and an event within one.
UNEVEN = TABLE | {
    "day1/b.wav": [
        Event(0.50049, 1.0005, "Cat", 0.123456, 1),
        Event(1.33333, 2.4999, "Cat", 0.99999, 1),
        Event(2.1997, 2.2004, "Dog", 0.5, 1),
    ]
}
DOCS = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| \[`([\w-]+)`\]\(.*\) .*?\|(.*)\|$", DOCS, re.MULTILINE)
KEPT = {  # what the table of docs/formats.md says that a format keeps
    name: dict(
        zip(
            ("scores", "channels", "silence"),
            (cell.strip() != "no" for cell in row.split("|")[3:6]),
            strict=True,
        )
    )
    for name, row in ROWS
}


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_round_trips_keep_what_the_format_has_room_for(tmp_path, format):
    """Times to 1 ms, scores to 0.0001, labels, channels and silent recordings; what has no column is gone."""
    of, kept = FORMATS[format], KEPT[format]
    path = tmp_path / ("e" + of.suffix if of.shared else "folder")
    write_events(path, UNEVEN, format, durations=DURATIONS | {"day1/a.wav": 10.00044})
    found = read_events(path)
    assert set(found) == {name for name in UNEVEN if UNEVEN[name] or kept["silence"]}
    for name, events in found.items():
        # Of one table with channel 1 alone nobody knows whether it was chosen.
        channels = kept["channels"] and not (format == "raven" and name == "day1/b.wav")
        assert len(events) == len(UNEVEN[name])
        for read, written in zip(events, sorted(UNEVEN[name]), strict=True):
            assert read.label == written.label
            assert read.onset == pytest.approx(written.onset, abs=0.001)
            assert read.offset == pytest.approx(written.offset, abs=0.001)
            assert read.score == (pytest.approx(written.score, abs=1e-4) if kept["scores"] else 1.0)
            assert read.channel == (written.channel if channels else 0)


@pytest.mark.parametrize("format", sorted(FORMATS))
def test_trying_labels_survive_every_format(tmp_path, format):
    of = FORMATS[format]
    path = tmp_path / ("a" + of.suffix)
    write_events(path, {"a": TRYING_EVENTS}, format, durations={"a": 400_000.0})
    (found,) = read_events(path).values()
    wanted = [(e.onset, e.offset, e.label) for e in as_read(TRYING_EVENTS)]
    assert [(e.onset, e.offset, e.label) for e in found] == wanted


def test_pympi_reads_tiers_of_channels(tmp_path):
    Eaf = pytest.importorskip("pympi.Elan", reason="the extra test is not installed").Eaf

    write_events(tmp_path, {"a.wav": TRYING_EVENTS[:8] + STEREO}, "elan")
    document = Eaf(str(tmp_path / "a.wav.eaf"))
    tiers = {name: document.get_annotation_data_for_tier(name) for name in document.get_tier_names()}
    assert tiers["Dog [1]"] == [(250, 1500, "Dog")]
    assert tiers["Dog [2]"] == [(500, 1250, "Dog")]
    assert document.get_parameters_for_tier("Dog [2]")["PARTICIPANT"] == "channel 2"
    assert document.get_linked_files()[0]["RELATIVE_MEDIA_URL"] == "./a.wav"
    assert sum(map(len, tiers.values())) == 11


def test_documents_that_pympi_writes(tmp_path, caplog):
    Eaf = pytest.importorskip("pympi.Elan", reason="the extra test is not installed").Eaf

    document = Eaf()
    document.add_tier("birds")
    document.add_annotation("birds", 250, 1500, 'Dog "big" & <small>')
    document.add_annotation("birds", 1500, 1750, "")
    document.add_linguistic_type("words", "Symbolic_Association", timealignable=False)
    document.add_tier("words", "words", "birds")
    document.add_ref_annotation("words", "birds", 300, "barks")
    document.to_file(str(tmp_path / "x.eaf"))
    assert read_events(tmp_path / "x.eaf") == {"x": [Event(0.25, 1.5, 'Dog "big" & <small>')]}
    assert "annotations without times of their own skipped: 1" in caplog.text


def test_elan_documents_follow_the_schema_in_their_order(tmp_path):
    """EAFv3.0.xsd: a sequence of HEADER, TIME_ORDER, TIER*, LINGUISTIC_TYPE*, LOCALE*."""
    write_events(tmp_path, TABLE, "elan")
    root = ElementTree.parse(tmp_path / "day1/a.wav.eaf").getroot()
    assert [each.tag for each in root] == [
        "HEADER", "TIME_ORDER", "TIER", "TIER", "TIER", "LINGUISTIC_TYPE", "LOCALE",
    ]  # fmt: skip
    assert {"AUTHOR", "DATE", "FORMAT", "VERSION"} <= set(root.attrib)
    slots = [slot.get("TIME_SLOT_ID") for slot in root.iter("TIME_SLOT")]
    used = [each.get(f"TIME_SLOT_REF{n}") for each in root.iter("ALIGNABLE_ANNOTATION") for n in (1, 2)]
    assert len(set(slots)) == len(slots)
    assert set(used) == set(slots)


def test_exports_of_label_studio(tmp_path):
    region = {"type": "labels", "value": {"start": 1.5, "end": 2, "channel": 0, "labels": ["Dog", "Animal"]}}
    region |= {"from_name": "sounds", "to_name": "sound", "original_length": 5.0, "origin": "manual"}
    choice = {"type": "choices", "value": {"choices": ["noisy"]}, "from_name": "q", "to_name": "sound"}
    tasks = [
        {"id": 7, "data": {"sound": "/data/upload/3/1a2b3c4d-dawn.wav"},
         "annotations": [{"result": [], "was_cancelled": True}, {"result": [choice, region]}],
         "predictions": [{"result": [{**region, "score": 0.5}]}]},
        {"data": {"audio": "/data/local-files/?d=site%201/a.wav"},
         "predictions": [{"result": [{**region, "score": 0.5}]}]},
        {"data": {"audio": "s3://bucket/b.wav"}, "annotations": []},
    ]  # fmt: skip
    assert read_events(write(tmp_path / "x.json", json.dumps(tasks))) == {
        "dawn.wav": [Event(1.5, 2, "Animal", 1.0, 1), Event(1.5, 2, "Dog", 1.0, 1)],
        "site 1/a.wav": [Event(1.5, 2, "Animal", 0.5, 1), Event(1.5, 2, "Dog", 0.5, 1)],
        "b.wav": [],
    }


@pytest.mark.parametrize(
    "text", ["[1]", "[{}]", "[", '[{"data": {}}]', '[{"data": {"audio": "a"}, "annotations": 3}]']
)
def test_what_is_no_label_studio_json(tmp_path, text):
    with pytest.raises(AnnotationError, match=r"x\.json: is not Label Studio JSON"):
        read_events(write(tmp_path / "x.json", text), "label-studio")


def test_a_raven_table_of_a_folder_counts_through_all_recordings(tmp_path):
    path = tmp_path / "season.selections.txt"
    starts = {"day1/b.wav": Start(parse_time("2026-05-12T23:59:59.750+02:00"), "name")}
    write_events(path, TABLE, "raven-folder", durations=DURATIONS, starts=starts)
    header, *rows = (line.split("\t") for line in path.read_text().splitlines())
    assert header[7:] == [
        *("Annotation", "Score", "Begin File", "Begin Path", "File Offset (s)", "Begin Clock Time", "Begin Date"),
    ]  # fmt: skip
    assert [(row[0], row[2], row[3], row[4], row[11]) for row in rows] == [
        ("1", "1", "0.250", "1.500", "0.250"), ("2", "2", "0.500", "1.250", "0.500"),
        ("3", "2", "2.000", "3.000", "2.000"), ("4", "1", "15.500", "16.000", "0.500"),
    ]  # fmt: skip
    assert rows[3][9:] == ["b.wav", "day1/b.wav", "0.500", "00:00:00.250", "2026/05/13"]
    with pytest.raises(UsageError, match=r"the duration of day1/a\.wav is unknown"):
        write_events(path, TABLE, "raven-folder")


KALEIDOSCOPE = """INDIR,FOLDER,IN FILE,CHANNEL,OFFSET,DURATION,DATE,TIME,HOUR,TOP1MATCH*,TOP1DIST,MANUAL ID*
C:\\card,Data\\day1,S4A_20190522_000000.wav,0,1.5,0.25,2019-05-22,00:00:01,0,cluster01,0.3,Wren
C:\\card,Data\\day1,S4A_20190522_000000.wav,1,2.5,0.25,2019-05-22,00:00:02,0,cluster02,0.3,
C:\\card,,b.wav,0,0,60,2019-05-22,01:00:00,1,NoID,,
"""
BIRDNET = """INDIR,FOLDER,IN FILE,OFFSET,DURATION,scientific_name,common_name,confidence,lat,lon,week,overlap,sensitivity
/data,site1,a.wav,3.0,3.0,Troglodytes troglodytes,Eurasian Wren,0.75,-1,-1,-1,0.0,1.0
"""


def test_tables_of_kaleidoscope_and_birdnet(tmp_path):
    assert read_events(write(tmp_path / "cluster.csv", KALEIDOSCOPE)) == {
        "Data/day1/S4A_20190522_000000.wav": [
            Event(1.5, 1.75, "Wren", 1.0, 1), Event(2.5, 2.75, "cluster02", 1.0, 2),
        ],
        "b.wav": [],
    }  # fmt: skip
    assert read_events(write(tmp_path / "birdnet.csv", BIRDNET)) == {
        "site1/a.wav": [Event(3.0, 6.0, "Eurasian Wren", 0.75)]
    }


def test_tables_of_birdnet_analyzer(tmp_path):
    header, row = (
        "Start (s),End (s),Scientific name,Common name,Confidence",
        "3.0,6.0,Turdus merula,Blackbird,0.8123",
    )
    many = write(tmp_path / "BirdNET_CombinedTable.csv", f"{header},File\n{row},/data/site1/a.wav\n")
    assert read_events(many) == {"/data/site1/a.wav": [Event(3.0, 6.0, "Blackbird", 0.8123)]}
    one = write(tmp_path / "a.BirdNET.results.csv", f"{header}\n{row}\n")
    assert read_events(one) == {"a": [Event(3.0, 6.0, "Blackbird", 0.8123)]}
    assert read_events(write(one, f"{header}\n")) == {"a": []}
    track = write(tmp_path / "a.BirdNET.results.txt", "3.0\t6.0\tTurdus merula_Blackbird\t0.8123\n")
    assert read_events(track) == {"a": [Event(3.0, 6.0, "Turdus merula_Blackbird", 0.8123)]}
    with pytest.raises(AnnotationError, match="line 2: Confidence is not a number"):
        read_events(write(one, f"{header}\n3.0,6.0,Turdus merula,Blackbird,high\n"))


def test_audiosets_strong_labels(tmp_path):
    text = (
        "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\nb0RFKhbpFJA_30000\t0.000\t10.000\t/m/09x0r\n"
        "b0RFKhbpFJA_30000\t3.753\t4.720\t/t/unknown\nIm9k61k_bVM_10000\t0.200\t1.000\t/m/0bt9lr\n"
    )
    assert read_events(write(tmp_path / "audioset_eval_strong.tsv", text)) == {
        "b0RFKhbpFJA_30000": [Event(0, 10, "Speech"), Event(3.753, 4.72, "/t/unknown")],
        "Im9k61k_bVM_10000": [Event(0.2, 1, "Dog")],
    }
    write_events(tmp_path / "again.tsv", read_events(tmp_path / "audioset_eval_strong.tsv"), "audioset")
    assert (tmp_path / "again.tsv").read_text() == text


def test_layers_that_sonic_visualiser_writes(tmp_path, caplog):
    text = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE sonic-visualiser>
<sv>
  <data>
    <model id="5" name="" sampleRate="48000" start="48000" end="144000" type="sparse" dimensions="3" resolution="1" \
notifyOnAdd="true" dataset="4"  subtype="region" valueQuantization="0" minimum="1" maximum="2" units="" />
    <dataset id="4" dimensions="3">
      <point frame="48000" value="1" duration="24000" label="Dog" />
      <point frame="96000" value="2" duration="48000" label="New Point" />
      <point frame="96000" value="2" duration="48000" label="" />
    </dataset>
  </data>
  <display>
    <layer id="3" type="regions" name="Regions" model="5"  verticalScale="0" plotStyle="1" />
  </display>
</sv>
"""
    assert read_events(write(tmp_path / "a.wav.svl", text)) == {
        "a.wav": [Event(1.0, 1.5, "Dog"), Event(2.0, 3.0, "New Point")]
    }
    assert "1 event without a label or duration dropped" in caplog.text


@pytest.mark.parametrize("suffix", [".eaf", ".svl"])
@pytest.mark.parametrize(
    "text", ["<sv", "<!DOCTYPE x [<!ENTITY a 'b'>]><sv>&a;</sv>", "<other/>", "<sv><dataset><point/>"]
)
def test_broken_xml_is_an_error(tmp_path, suffix, text):
    format = {".eaf": "elan", ".svl": "sonic-visualiser"}[suffix]
    with pytest.raises(AnnotationError):
        read_events(write(tmp_path / f"x{suffix}", text), format)
