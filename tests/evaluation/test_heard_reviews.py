"""A review as the reference of an evaluation: only what somebody listened to counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from htsat_sed.detection.events import Event
from htsat_sed.evaluation.tables import Remarks, only_heard

REVIEW = """\
filename,onset,offset,event_label,score,verdict,detected_onset,detected_offset,detected_label,heard
a.wav,1.000,2.000,Dog,0.9000,right,1.000,2.000,Dog,
a.wav,,,,0.8000,wrong,3.000,4.000,Dog,
a.wav,,,,0.7000,unsure,5.000,6.000,Dog,
a.wav,7.000,8.000,Cat,0.6000,other,7.000,8.000,Dog,
a.wav,21.000,22.000,Cat,,missed,,,,
a.wav,,,,,listened,20.000,30.000,,
a.wav,,,,0.9500,,40.000,41.000,Dog,
a.wav,,,,,,,,,"[[""Dog"", 1, 2], [""Dog"", 3, 4], [""Dog"", 7, 8], [""*"", 20, 30]]"
"""


def test_in_a_stretch_listened_to_every_class_counts() -> None:
    heard = {"a": [Event(0.0, 10.0, "*"), Event(20.0, 21.0, "Dog")]}
    estimated = {"a": [Event(1.0, 2.0, "Cat"), Event(9.0, 12.0, "Dog"), Event(20.0, 21.0, "Cat")]}
    assert only_heard({}, estimated, heard, Remarks()) == {
        "a": [Event(1.0, 2.0, "Cat"), Event(9.0, 12.0, "Dog")]
    }


def test_evaluate_takes_a_review(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    (tmp_path / "review.csv").write_text(REVIEW, encoding="utf-8")
    events = ["1 2 Dog", "3 4 Dog", "5 6 Dog", "7 8 Dog", "24 25 Cat", "40 41 Dog"]
    rows = "".join(f"a.wav\t{event.replace(' ', chr(9))}\n" for event in events)
    (tmp_path / "events.tsv").write_text(f"filename\tonset\toffset\tevent_label\n{rows}", encoding="utf-8")
    code, _, err = run(
        "evaluate", tmp_path / "review.csv", tmp_path / "events.tsv", "--csv", tmp_path / "found.csv"
    )
    assert code == 0
    assert "2 estimated events that nobody listened to: left out" in err  # those at 5 s and at 40 s
    counts = {
        tuple(row.split(",")[:3]): float(row.split(",")[3])
        for row in (tmp_path / "found.csv").read_text(encoding="utf-8").splitlines()
        if row.startswith(("intersection,Dog", "intersection,Cat"))
        and row.split(",")[2] in ("tp", "fp", "fn")
    }
    assert counts == {
        ("intersection", "Dog", "tp"): 1.0,
        ("intersection", "Dog", "fp"): 2.0,
        ("intersection", "Dog", "fn"): 0.0,
        ("intersection", "Cat", "tp"): 0.0,
        ("intersection", "Cat", "fp"): 1.0,
        ("intersection", "Cat", "fn"): 2.0,
    }
