"""Label tables and label files as `htsat-sed evaluate` meets them: mended, refused, or spelt otherwise."""

from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]

HEADER = "filename\tonset\toffset\tevent_label\n"
LABELS = HEADER + "a.wav\t0\t1\tDog\nb.wav\t1\t2\tCat\n"


def _reference(path: Path, *rows: str) -> Path:
    path.write_text(HEADER + "".join(f"{row}\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (LABELS, ""),
        (LABELS + "c.wav\t\t\t\n", ""),
        (LABELS + "c.wav\n", ""),
        (LABELS.replace("\t", ","), ""),
        (LABELS.replace("\t1\t", "\t1,0\t").replace("\t", ";"), ""),
        ("\ufeff" + LABELS.replace("\n", "\r\n"), ""),
        (LABELS.replace("\n", "\r"), ""),
        (LABELS.encode("utf-16"), ""),
        ("onset\toffset\tevent_label\tfilename\tnote\n0\t1\tDog\ta.wav\t\n1\t2\tCat\tb.wav\tloud\n", ""),
        (LABELS + "a.wav\t0\t1\tDog\n", "{path}: 1 event given twice dropped, the first in line 4"),
        (LABELS + "a.wav\t3\t3\tDog\n", "{path}: 1 event without duration dropped, the first in line 4"),
        (LABELS + "a.wav\t.5\t1\tDog\n", "1 {side} event overlapping another of the same class: merged"),
    ],
)
@pytest.mark.parametrize("side", ["reference", "estimated"])
def test_labels_that_a_rule_mends(
    run: Run, tmp_path: Path, text: str | bytes, warning: str, side: str
) -> None:
    path, other = tmp_path / f"{side}.tsv", tmp_path / "other.tsv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    other.write_text(LABELS + "c.wav\t\t\t\n")
    code, out, err = run("evaluate", *((path, other) if side == "reference" else (other, path)))
    assert code == 0
    assert out.count("macro f1: 100.00 %") == 4
    told = [line for line in err.splitlines() if "1 recording without " not in line]
    assert told == ([f"warning: {warning.format(path=path, side=side)}"] if warning else [])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (HEADER + "a.wav\t2\t1\tDog\n", "line 2: offset 1 is before onset 2"),
        ("filename\toffset\tonset\tevent_label\na.wav\t0\t1\tDog\n", "line 2: offset 0 is before onset 1"),
        (LABELS + "\na.wav\tsoon\t1\tDog\n", "line 5: onset is not a number: 'soon'"),
        (LABELS + "a.wav\t0,5,1\t1\tDog\n", "line 4: onset is not a number: '0,5,1'"),
        (LABELS + "a.wav\tnan\t1\tDog\n", "line 4: onset is nan, wanted 0 or more"),
        (LABELS + "a.wav\t-1\t1\tDog\n", "line 4: onset is -1, wanted 0 or more"),
        (LABELS + "a.wav\t1\t\tDog\n", "line 4: offset empty: wanted all of onset, offset and event_label"),
        (LABELS + "\t1\t2\tDog\n", "line 4: no filename"),
        (LABELS + "a.wav\t1\t2\tDog\tloud\n", "line 4: 5 cells, but 4 columns\n"),
        (
            HEADER.replace("\t", ",") + "a.wav,1,2,Baby cry, infant cry\n",
            "line 2: 5 cells, but 4 columns; put cells with a comma in quotes",
        ),
        (LABELS + 'a.wav\t1\t2\t"Dog\n', "line 4: unbalanced quotes"),
        (LABELS.encode() + b"\xe4.wav\t1\t2\tDog\n", "line 4: not UTF-8 text, save it as UTF-8"),
        (
            "a.wav\t0\t1\tDog\n",
            "lacks the columns filename, onset, offset, event_label; it has a.wav, 0, 1, Dog",
        ),
        ("filename\tduration\na.wav\t10\n", "lacks the columns onset, offset, event_label"),
        ("filename,event_label,score\na.wav,Dog,0.9\n", "lacks the columns onset, offset"),
        ("", "is empty, wanted a table with the columns filename, onset, offset, event_label"),
        (HEADER, "wanted a reference with at least one event of the scored classes, got none"),
        (HEADER + "a.wav\t\t\t\n", "wanted a reference with at least one event of the scored classes"),
        (HEADER + "x.wav\t0\t1\tDog\n", "the reference has 'x.wav', the estimates 'a.wav'"),
        (bytes(range(128, 256)), "line 1: not UTF-8 text, save it as UTF-8"),
    ],
)
def test_bad_labels_name_file_and_row(run: Run, tmp_path: Path, text: str | bytes, reason: str) -> None:
    labels, estimated = tmp_path / "reference.tsv", tmp_path / "estimated.tsv"
    labels.write_bytes(text if isinstance(text, bytes) else text.encode())
    estimated.write_text(LABELS)
    code, out, err = run("evaluate", labels, estimated)
    assert (code, out) == (1, "")
    assert err.startswith(f"error: {labels}: ")
    assert reason in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("spelt", ["DOG", "dog", "Dgo"])
def test_labels_that_are_spelt_otherwise_are_hinted_at(run: Run, tmp_path: Path, spelt: str) -> None:
    (tmp_path / "reference.tsv").write_text(LABELS.replace("Dog", spelt))
    (tmp_path / "estimated.tsv").write_text(LABELS)
    code, out, err = run("evaluate", tmp_path / "reference.tsv", tmp_path / "estimated.tsv")
    assert code == 0
    assert out.count("macro f1: 50.00 %") == 4
    assert err == (
        "warning: 1 estimated event of classes without reference events (Dog): left out; is 'Dog' the "
        f"reference's {spelt!r}?\n"
    )


@pytest.mark.parametrize(
    ("reference_labels", "estimated_labels", "hint"),
    [
        (["Car", "dog"], ["Cat", "Dog"], "; is 'Dog' the reference's 'dog'?"),
        (["Dog", "Cat"], ["Dog", "dog"], "; is 'dog' the reference's 'Dog'?"),
        (["Dog", "Cat"], ["Dog", "Dag"], ""),
        (["Dog", "Cat"], ["Rain"], ""),
    ],
)
def test_the_nearest_spelling_is_hinted_at(
    run: Run, tmp_path: Path, reference_labels: list[str], estimated_labels: list[str], hint: str
) -> None:
    for name, labels in (("reference.tsv", reference_labels), ("estimated.tsv", estimated_labels)):
        rows = (f"a.wav\t{i}\t{i + 1}\t{label}\n" for i, label in enumerate(labels))
        (tmp_path / name).write_text(HEADER + "".join(rows))
    _, _, err = run("evaluate", tmp_path / "reference.tsv", tmp_path / "estimated.tsv")
    assert err.endswith(f"left out{hint}\n")


def test_a_class_that_is_not_asked_for_raises_no_warning(run: Run, tmp_path: Path) -> None:
    table = tmp_path / "table.tsv"
    table.write_text(HEADER + "a.wav\t0\t1\tMale speech\n" + "a.wav\t3\t4\tFemale speech\n")
    _, _, err = run("evaluate", table, table, "--class", "Female speech")
    assert err == ""


def test_label_files_know_no_audio_suffix(run: Run, tmp_path: Path) -> None:
    labels = _reference(tmp_path / "reference.tsv", "day/a.wav\t0\t2.5\tDog", "day/b.wav\t0\t1\tDog")
    found = tmp_path / "found" / "day"
    found.mkdir(parents=True)
    (found / "a.txt").write_text("0.0\t2.5\tDog\n")
    (found / "b.wav.txt").write_text("")
    code, out, err = run("evaluate", labels, tmp_path / "found")
    assert code == 0
    assert "macro f1: 66.67 %" in out
    assert err == "warning: 1 recording matched without folder or suffix, such as 'day/a.wav' and 'day/a'\n"
    (tmp_path / "a.txt").write_text("0.0\t2.5\tDog\n")
    labels = _reference(tmp_path / "two.tsv", "a.wav\t0\t2.5\tDog", "a.flac\t0\t1\tDog")
    code, out, err = run("evaluate", labels, tmp_path / "a.txt")
    assert (code, out) == (1, "")
    assert f"error: {labels}: a name matches several recordings: 'a' could be 'a.flac' or 'a.wav'" in err
