"""TextGrids of other programs, and ours as they read them."""

import pytest
from labels_made import EVENTS, TRYING_EVENTS, as_read, bounds, write

from htsat_sed.annotations import read_events, write_events
from htsat_sed.annotations.text import unescape
from htsat_sed.detection.events import Event
from htsat_sed.errors import AnnotationError


def test_praatio_reads_our_textgrids(tmp_path):
    from praatio import textgrid

    write_events(tmp_path / "a.TextGrid", {"a.wav": EVENTS}, "textgrid", durations={"a.wav": 65.0})
    grid = textgrid.openTextgrid(str(tmp_path / "a.TextGrid"), includeEmptyIntervals=False)
    assert (grid.minTimestamp, grid.maxTimestamp) == (0, 65)
    assert grid.tierNames == ('Bell "ding"', "Running water", "Speech")
    assert grid.validate("error")
    entries = [tuple(entry) for name in grid.tierNames for entry in grid.getTier(name).entries]
    assert sorted(entries) == bounds(EVENTS)


def test_praatio_reads_a_textgrid_without_events(tmp_path):
    from praatio import textgrid

    write_events(tmp_path / "a.TextGrid", {"a.wav": []}, "textgrid", durations={"a.wav": 65.0})
    grid = textgrid.openTextgrid(str(tmp_path / "a.TextGrid"), includeEmptyIntervals=True)
    assert grid.tierNames == ("events",)
    assert [tuple(entry) for entry in grid.getTier("events").entries] == [(0, 65, "")]


def test_tgt_reads_our_textgrids(tmp_path):
    import tgt

    write_events(tmp_path / "a.TextGrid", {"a.wav": EVENTS}, "textgrid")
    grid = tgt.read_textgrid(str(tmp_path / "a.TextGrid"))
    assert grid.end_time == 4
    found = [(i.start_time, i.end_time, i.text) for tier in grid.tiers for i in tier.intervals]
    assert sorted((float(start), float(end), text) for start, end, text in found) == bounds(EVENTS)


@pytest.mark.parametrize("format", ["long_textgrid", "short_textgrid"])
def test_textgrids_by_praatio(tmp_path, caplog, format):
    from praatio import textgrid

    grid = textgrid.Textgrid()
    grid.addTier(textgrid.IntervalTier("words", [(0.5, 1.0, 'a "b"'), (1.0, 2.0, "c = 3 ! d")], 0, 3))
    grid.addTier(textgrid.PointTier("clicks", [(0.25, "x")], 0, 3))
    grid.addTier(textgrid.IntervalTier("phones", [(0.5, 0.75, "ŋ")], 0, 3))
    path = tmp_path / "talk.TextGrid"
    grid.save(str(path), format=format, includeBlankSpaces=True)
    expected = [Event(0.5, 0.75, "ŋ"), Event(0.5, 1.0, 'a "b"'), Event(1.0, 2.0, "c = 3 ! d")]
    assert read_events(path) == {"talk": expected}
    assert caplog.messages == [f"{path}: point tier 'clicks' skipped: 1 points without length"]
    path.write_text(path.read_text(encoding="utf-8"), encoding="utf-16")
    assert read_events(path) == {"talk": expected}


def test_textgrids_by_tgt(tmp_path):
    import tgt

    grid, tier = tgt.TextGrid(), tgt.IntervalTier(0, 3, "birds")
    tier.add_interval(tgt.Interval(0.5, 1.0, "Amsel"))
    grid.add_tier(tier)
    (tmp_path / "a.TextGrid").write_text(tgt.io.export_to_short_textgrid(grid))
    assert read_events(tmp_path / "a.TextGrid") == {"a": [Event(0.5, 1.0, "Amsel")]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            'File type = "ooTextFile"\nObject class = "Pitch 1"\n',
            ("is not a TextGrid but ooTextFile of Pitch 1"),
        ),
        ('File type = "ooTextFile"\n', "is cut short"),
        (
            'File type = "ooTextFile"\nObject class = "TextGrid"\n0 1 <exists> 1 "IntervalTier" "a"',
            "is cut short",
        ),
        (
            'File type = "ooTextFile"\nObject class = "TextGrid"\n0 1 <exists> 1 "X" "a" 0 1 0',
            "unknown kind 'X'",
        ),
        (
            'File type = "ooTextFile"\nObject class = "TextGrid"\n0 1 <exists> "many"',
            "is not a TextGrid: wanted a number of tiers or intervals",
        ),
        (
            'File type = "ooTextFile"\nObject class = "TextGrid"\n0 1\n<exists> 1\n"IntervalTier" "a" 0 1 1\n2 1 "x"',
            "line 6: offset 1 is before onset 2",
        ),
    ],
)
def test_broken_textgrids_are_errors(tmp_path, text, reason):
    with pytest.raises(AnnotationError, match=reason):
        read_events(write(tmp_path / "a.TextGrid", text))


@pytest.mark.parametrize("format", ["long_textgrid", "short_textgrid"])
def test_trying_events_through_praatio(tmp_path, format):
    from praatio import textgrid

    write_events(tmp_path / "a.TextGrid", {"a": TRYING_EVENTS}, "textgrid", durations={"a": 400_000.0})
    grid = textgrid.openTextgrid(str(tmp_path / "a.TextGrid"), includeEmptyIntervals=False)
    assert grid.validate("error")
    found = [tuple(entry) for name in grid.tierNames for entry in grid.getTier(name).entries]
    assert sorted((onset, offset, unescape(label)) for onset, offset, label in found) == bounds(TRYING_EVENTS)
    grid.save(str(tmp_path / "a.TextGrid"), format=format, includeBlankSpaces=True)
    assert bounds(read_events(tmp_path / "a.TextGrid")["a"]) == bounds(as_read(TRYING_EVENTS))


def test_trying_events_through_tgt(tmp_path):
    import tgt

    events = [event for event in TRYING_EVENTS if " = " not in event.label]  # tgt reads on from any such sign
    write_events(tmp_path / "a.TextGrid", {"a": events}, "textgrid")
    grid = tgt.read_textgrid(str(tmp_path / "a.TextGrid"))
    found = [(i.start_time, i.end_time, unescape(i.text)) for tier in grid.tiers for i in tier.intervals]
    assert sorted(found) == bounds(events)
    tgt.write_to_file(grid, str(tmp_path / "a.TextGrid"), format="long", encoding="utf-8")
    assert bounds(read_events(tmp_path / "a.TextGrid")["a"]) == bounds(as_read(events))


def test_a_textgrid_may_have_labels_of_several_lines(tmp_path):
    head = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n2\n<exists>\n1\n'
    path = write(tmp_path / "a.TextGrid", f'{head}"IntervalTier"\n"x"\n0\n2\n1\n0\n2\n"two\nlines"\n')
    assert read_events(path) == {"a": [Event(0, 2, "two\nlines")]}
