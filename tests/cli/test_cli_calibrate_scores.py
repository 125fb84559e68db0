"""`htsat-sed checkpoints calibrate-scores`, and what detect and tag then print."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
from golden.reference_state import recording
from rule_made import by_rule

from htsat_sed import Detector
from htsat_sed.model.checkpoint import load_checkpoint, read_info, save_checkpoint
from htsat_sed.model.htsat import HTSAT, HTSATConfig

TINY = HTSATConfig(embed_dim=16, depths=(1, 1, 1, 1), heads=(1, 2, 2, 4), classes=3)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def yard(tmp_path: Path) -> Path:
    folder = tmp_path / "yard"
    folder.mkdir()
    for i in range(6):
        soundfile.write(folder / f"{i}.wav", recording(5.0, 32_000, i), 32_000)
    return folder


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    path = tmp_path / "ours.safetensors"
    model = by_rule(HTSAT(TINY, ("Dog", "Cat", "Rain")).eval(), seed=0)
    save_checkpoint(path, model, post_processing={"threshold": 0.05})
    return path


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_scores_are_calibrated_and_events_stay(run: Run, ours: Path, yard: Path, tmp_path: Path) -> None:
    code, out, _ = run("detect", yard, "-c", ours, "-f", "csv")
    before = rows(out)
    assert len(before) >= 8
    # Every second event is right; the last recording is a negative.
    right = [row for row in before if row["filename"] != "5.wav"][::2]
    reference = tmp_path / "reference.tsv"
    cells = ["\t".join((r["filename"], r["onset"], r["offset"], r["event_label"])) for r in right]
    reference.write_text("\n".join(["filename\tonset\toffset\tevent_label", *cells, ""]))
    negatives = tmp_path / "negatives"
    negatives.mkdir()
    (yard / "5.wav").rename(negatives / "5.wav")
    new = tmp_path / "new.safetensors"
    command = ("checkpoints", "calibrate-scores", reference, "--audio", yard, "-c", ours, "--into", new)
    code, out, _ = run(*command, "--negatives", negatives)
    assert code == 0
    assert "events: calibration error" in out
    assert "clip scores: calibration error" in out
    values = read_info(new).post_processing
    assert values is not None
    assert values["threshold"] == 0.05
    assert set(values["classes"]) == {"Dog", "Cat", "Rain"}
    assert read_info(new).provenance["score_calibration"]["negatives"] == 1

    (negatives / "5.wav").rename(yard / "5.wav")
    code, out, _ = run("detect", yard, "-c", new, "-f", "csv")
    after = rows(out)
    same = ("filename", "onset", "offset", "event_label")
    assert [[row[k] for k in same] for row in after] == [[row[k] for k in same] for row in before]
    assert all(a["score"] != b["score"] for a, b in zip(after, before, strict=True))
    code, out, _ = run("detect", yard, "-c", new, "-f", "csv", "--raw-scores")
    assert rows(out) == before

    code, out, _ = run("tag", yard, "-c", ours)
    tags = rows(out)
    code, out, _ = run("tag", yard, "-c", new, "--raw-scores")
    assert rows(out) == tags
    code, out, _ = run("tag", yard, "-c", new)
    calibrated = {(row["filename"], row["event_label"]): row["score"] for row in rows(out)}
    assert calibrated.keys() == {(row["filename"], row["event_label"]) for row in tags}
    assert all(calibrated[row["filename"], row["event_label"]] != row["score"] for row in tags)
    scores = Detector(load_checkpoint(new)).clip_scores(str(yard / "0.wav"))
    for label, score in zip(("Dog", "Cat", "Rain"), scores.tolist(), strict=True):
        assert float(calibrated["0.wav", label]) == pytest.approx(score, abs=1e-4)


def test_what_cannot_be_is_refused(run: Run, ours: Path, yard: Path, tmp_path: Path) -> None:
    reference = tmp_path / "reference.tsv"
    reference.write_text("filename\tonset\toffset\tevent_label\n0.wav\t1\t2\tDog\n")
    command = ("checkpoints", "calibrate-scores", reference, "--audio", yard, "-c", ours)
    assert run(*command, "--into", tmp_path / "new.pt")[0] == 2
    code, _, err = run(*command, "--into", ours)
    assert code in (1, 2)
    assert "ours.safetensors" in err
    code, _, err = run(*command, "--into", tmp_path / "new.safetensors", "--negatives", tmp_path / "none")
    assert code == 1
    assert "none: no such folder" in err
    assert not (tmp_path / "new.safetensors").exists()
