"""Metrics for Prometheus, read by its own client library."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from planted import BATCH, Run

from htsat_sed.errors import HtsatSedError
from htsat_sed.runs import metrics
from htsat_sed.runs import run as runs
from htsat_sed.runs.metrics import write_metrics
from htsat_sed.runs.output_hashes import RECORD

parser = pytest.importorskip("prometheus_client.parser", reason="prometheus_client is not installed")


def read(path: Path) -> tuple[dict[str, float], dict[str, str], dict[str, str]]:
    """Values by name, the labels that all of them have, and types."""
    families = list(parser.text_string_to_metric_families(path.read_text(encoding="utf-8")))
    samples = [sample for family in families for sample in family.samples]
    (labels,) = {tuple(sorted(sample.labels.items())) for sample in samples}
    assert all(family.documentation for family in families)
    types = {family.name: family.type for family in families}
    return {sample.name: sample.value for sample in samples}, dict(labels), types


def test_metrics_are_the_counts_of_the_summary(run: Run, checkpoint: Path, few: Path, tmp_path: Path) -> None:
    (few / "2.wav").write_bytes(b"")
    file, summary = tmp_path / "node.prom", tmp_path / "summary.json"
    command = ("detect", few, *BATCH, "-c", checkpoint, "--metrics", file, "--json-summary", summary)
    assert run(*command, "--shard", "1/1", "-o", tmp_path / "a.csv")[0] == 1
    values, labels, types = read(file)
    counts = json.loads(summary.read_text())
    assert labels == {"run": "node", "shard": "1/1"}
    for name, entry in (
        ("", "recordings"),
        ("_done", "done"),
        ("_failed", "failed"),
        ("_damaged", "damaged"),
    ):
        assert values[f"htsat_sed_recordings{name}"] == counts[entry]
    assert (counts["done"], counts["failed"]) == (5, 1)
    assert values["htsat_sed_audio_seconds_total"] == counts["audio_seconds"]
    assert values["htsat_sed_run_complete"] == 1
    assert (
        values["htsat_sed_run_start_timestamp_seconds"] <= values["htsat_sed_run_updated_timestamp_seconds"]
    )
    assert types["htsat_sed_audio_seconds"] == "counter"
    assert types["htsat_sed_recordings_done"] == "gauge"
    assert "node.prom" not in (tmp_path / RECORD).read_text()


@pytest.mark.parametrize("command", ["detect", "tag", "embed"])
def test_metrics_are_renewed_as_a_run_goes_on_and_when_an_error_ends_it(
    command: str, run: Run, checkpoint: Path, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if command == "embed":
        pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    seen: list[tuple[float, float]] = []

    def watched(path: Path, summary: dict[str, object]) -> None:
        write_metrics(path, summary)
        values, _, _ = read(path)
        seen.append((values["htsat_sed_recordings_done"], values["htsat_sed_run_complete"]))

    monkeypatch.setattr(metrics, "write_metrics", watched)
    monkeypatch.setattr(runs, "_METRICS_EVERY", 0.0)
    first = (command, few, *BATCH, "-c", checkpoint, "--metrics", tmp_path / "a.prom")
    assert run(*first, "-o", tmp_path / "out.csv")[0] == 0
    assert seen == sorted(seen)
    assert {done for done, _ in seen} == set(range(7))
    assert [complete for _, complete in seen] == [0.0] * (len(seen) - 1) + [1.0]

    def full(self: runs.Run, *_: object) -> None:
        raise OSError(28, "No space left on device", "disk")

    monkeypatch.setattr(runs.Run, "note", full)
    assert run(*first, "-o", tmp_path / "again.csv")[0] == 1
    assert seen[-1] == (0.0, 0.0)


def test_a_disk_that_is_full_for_metrics_alone_ends_no_run(
    run: Run, checkpoint: Path, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, summary: dict[str, object]) -> None:
        if summary["done"]:
            raise HtsatSedError(path, "cannot be written: No space left on device")
        write_metrics(path, summary)

    monkeypatch.setattr(metrics, "write_metrics", full)
    monkeypatch.setattr(runs, "_METRICS_EVERY", 0.0)
    first = ("detect", few, *BATCH, "-c", checkpoint, "--metrics", tmp_path / "a.prom")
    assert run(*first, "-o", tmp_path / "a.csv")[0] == 0


def test_metrics_replace_nothing_else(run: Run, checkpoint: Path, few: Path, tmp_path: Path) -> None:
    files = (("a.txt", "", "the name must end in .prom"), ("b.prom", "other 1\n", "does not hold metrics"))
    for name, text, part in files:
        (tmp_path / name).write_text(text)
        command = ("detect", few, "-c", checkpoint, "-o", tmp_path / "a.csv", "--metrics", tmp_path / name)
        code, _, err = run(*command)
        assert (code, part in err, (tmp_path / name).read_text()) == (2, True, text)
    code, _, err = run("detect", few, "-c", checkpoint, "--metrics", tmp_path / "none" / "a.prom")
    assert (code, "its folder does not exist" in err) == (1, True)


def test_labels_of_any_text(tmp_path: Path) -> None:
    name = 'a "b" \\n\n☂'
    summary = {
        "shard": None,
        "complete": False,
        "started": "2026-11-29T00:00:00+00:00",
        **dict.fromkeys(("recordings", "done", "done_before", "failed", "damaged"), 1),
        **dict.fromkeys(("audio_seconds", "seconds"), 0.5),
    }
    write_metrics(tmp_path / f"{name}.prom", summary)
    values, labels, _ = read(tmp_path / f"{name}.prom")
    assert labels == {"run": name}
    assert values["htsat_sed_run_start_timestamp_seconds"] == 1_795_910_400.0
