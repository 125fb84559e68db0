"""`htsat-sed detect` and `tag` on real files: what they write, say and exit with."""

import io
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from golden.reference_state import recording
from rule_made import by_rule, golden_recording

from htsat_sed.annotations import read_events, read_presence_map, read_tags
from htsat_sed.audio import open_recording
from htsat_sed.cli.terminal import errors
from htsat_sed.detection import detector
from htsat_sed.model.checkpoint import load_checkpoint, save_checkpoint
from htsat_sed.model.htsat import HTSAT, HTSATConfig

TINY = HTSATConfig(classes=3, embed_dim=16, depths=(1, 1, 1, 1), heads=(1, 2, 2, 4))
RATE = 32_000
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hears rule-made events: random weights, and thresholds among their scores."""
    model = by_rule(HTSAT(TINY, ("Dog", "Cat", "Rain, light")), seed=3)
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.safetensors"
    save_checkpoint(path, model, post_processing={"threshold": 0.4, "classes": {"Cat": {"min_gap": 1.0}}})
    return path


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    folder = tmp_path / "recordings"
    (folder / "night").mkdir(parents=True)
    soundfile.write(folder / "street.wav", recording(12.0, RATE, 1), RATE)
    soundfile.write(folder / "night" / "owl.flac", recording(3.0, RATE, 2), RATE)
    return folder


def test_golden_events(run: Run, official_checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    """Worked out by hand from the golden presence map of `small_ce`, in tokens of 0.3125 s.

    Above 0.45, class 6 has token 13 (0.497), 15 (0.566), 17 to 24 (0.471, 0.568, 0.505, 0.462, 0.550,
    0.586, 0.522, 0.479) and 31 (0.881). Above 0.5, class 8 has token 8 (0.507), 20 (0.529) and 24 to 29
    (0.776, 0.658, 0.701, 0.712, 0.711, 0.693).
    """
    path = tmp_path / "golden.wav"
    soundfile.write(path, golden_recording("small_ce"), RATE, subtype="FLOAT")
    arguments = (path, "-c", official_checkpoint("small_ce"), "-f", "csv", "--threshold", "class_006=0.45")
    code, out, _ = run("detect", *arguments)
    assert code == 0
    rows = [line.split(",") for line in out.splitlines()]
    assert rows[0] == ["filename", "onset", "offset", "event_label", "score"]
    found = [(label, onset, offset, f"{float(score):.3f}") for _, onset, offset, label, score in rows[1:]]
    assert [event for event in found if event[0] == "class_006"] == [
        ("class_006", "4.062", "4.375", "0.497"),
        ("class_006", "4.688", "5.000", "0.566"),
        ("class_006", "5.312", "7.812", "0.586"),
        ("class_006", "9.688", "10.000", "0.881"),
    ]
    assert [event for event in found if event[0] == "class_008"] == [
        ("class_008", "2.500", "2.812", "0.507"),
        ("class_008", "6.250", "6.562", "0.529"),
        ("class_008", "7.500", "9.375", "0.776"),
    ]
    # Gaps of one token (0.3125 s) close, the one of six stays, and what is then shorter than 0.5 s goes.
    _, out, _ = run("detect", *arguments, "--min-gap", "0.4", "--min-event", "0.5", "--labels", "class_006")
    assert [line.rsplit(",", 1)[0] for line in out.splitlines()[1:]] == ["golden.wav,4.062,7.812,class_006"]


def test_tsv_on_standard_output_by_default(run: Run, checkpoint: Path, recordings: Path) -> None:
    code, out, err = run("detect", recordings, "-c", checkpoint)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "filename\tonset\toffset\tevent_label"
    assert [name for name in dict.fromkeys(line.split("\t")[0] for line in lines[1:])] == [
        "night/owl.flac",
        "street.wav",
    ]


@pytest.mark.parametrize("command", ["detect", "tag"])
def test_a_dash_is_standard_output(run: Run, checkpoint: Path, recordings: Path, command: str) -> None:
    code, out, _ = run(command, recordings / "street.wav", "-c", checkpoint, "-o", "-")
    assert (code, out.splitlines()[0][:8]) == (0, "filename")
    assert not Path("-").exists()


def test_suffix_tells_the_format(run: Run, checkpoint: Path, recordings: Path, tmp_path: Path) -> None:
    _, out, _ = run("detect", recordings, "-c", checkpoint, "-f", "jsonl")
    code, nothing, _ = run("detect", recordings, "-c", checkpoint, "-o", tmp_path / "new" / "events.jsonl")
    assert (code, nothing) == (0, "")
    written = (tmp_path / "new" / "events.jsonl").read_text()
    assert written == out
    assert [json.loads(line)["filename"] for line in written.splitlines()] == ["night/owl.flac", "street.wav"]


@pytest.mark.parametrize("form", ["audacity", "raven", "textgrid", "webvtt"])
def test_standard_output_leaves_no_file(
    run: Run, checkpoint: Path, recordings: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    monkeypatch.chdir(recordings / "night")
    code, out, _ = run("detect", "owl.flac", "-c", checkpoint, "-f", form)
    assert (code, bool(out)) == (0, True)
    assert [path.name for path in Path().iterdir()] == ["owl.flac"]


def test_many_formats_in_one_run(run: Run, checkpoint: Path, recordings: Path, tmp_path: Path) -> None:
    formats = [part for name in ("tsv", "csv", "jsonl", "audacity", "raven") for part in ("-f", name)]
    code, _, _ = run("detect", recordings, "-c", checkpoint, "-o", tmp_path / "out", *formats)
    assert code == 0
    assert sorted(
        p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("[!.]*.*")
    ) == [
        "events.csv",
        "events.jsonl",
        "events.tsv",
        "night/owl.flac.selections.txt",
        "night/owl.flac.txt",
        "street.wav.selections.txt",
        "street.wav.txt",
    ]
    table = read_events(tmp_path / "out" / "events.csv")
    same = read_events(tmp_path / "out" / "events.jsonl")
    assert [(e.label, round(e.onset, 3)) for e in table["street.wav"]] == [
        (e.label, round(e.onset, 3)) for e in same["street.wav"]
    ]


def test_ravens_boxes_end_at_half_the_recordings_rate(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(1).normal(0.0, 0.1, 16_000 * 3)
    soundfile.write(tmp_path / "a.flac", noise, 16_000)
    choice = ("-c", checkpoint, "-f", "raven", "--threshold", "0.0")
    _, printed, _ = run("detect", tmp_path / "a.flac", *choice)
    run("detect", tmp_path / "a.flac", *choice, "-o", tmp_path / "out")
    written = (tmp_path / "out" / "a.flac.selections.txt").read_text()
    for table in (printed, written):
        assert {line.split("\t")[6] for line in table.splitlines()[1:]} == {"8000.0"}


def test_scores_are_kept(run: Run, checkpoint: Path, recordings: Path, tmp_path: Path) -> None:
    code, _, _ = run("detect", recordings, "-c", checkpoint, "--scores", tmp_path / "maps")
    assert code == 0
    kept = read_presence_map(tmp_path / "maps" / "street.wav.npz")
    assert kept.scores.shape == (39, 3)
    assert (kept.labels, kept.duration) == (("Dog", "Cat", "Rain, light"), 12.0)
    assert (tmp_path / "maps" / "night" / "owl.flac.npz").is_file()


def test_scores_have_a_folder_of_their_own(
    run: Run, checkpoint: Path, recordings: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out.csv"
    for given in ((out, "--scores", out), (out, "--scores", out / "maps")):
        code, _, err = run("detect", recordings, "-c", checkpoint, "-o", *given)
        told = " ".join(err.replace("│", "").split())
        assert (code, out.exists(), "is a file, or lies in one: name a folder" in told) == (2, False, True)


def test_an_impossible_value_of_a_checkpoint_says_where_it_is_from(
    run: Run, checkpoint: Path, recordings: Path, tmp_path: Path
) -> None:
    model = load_checkpoint(checkpoint)
    bad = tmp_path / "c.safetensors"
    save_checkpoint(bad, model, post_processing={"median_filter": 700.0})
    code, _, err = run("detect", recordings, "-c", bad)
    assert code == 2
    assert err.startswith(
        f"error: {bad}: its post-processing is invalid: wanted median_filter in seconds, 0 to 600"
    )


def test_flags_override_file_overrides_checkpoint(
    run: Run, checkpoint: Path, recordings: Path, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('threshold = 1.0\n[classes."Rain, light"]\nthreshold = 0.0\n')
    street = recordings / "street.wav"
    _, out, _ = run("detect", street, "-c", checkpoint, "--post-processing", rules, "-f", "csv")
    assert out.splitlines()[1].startswith('street.wav,0.000,12.000,"Rain, light",')
    assert len(out.splitlines()) == 2
    _, out, _ = run("detect", street, "-c", checkpoint, "--post-processing", rules, "--threshold", "1")
    assert out.splitlines()[1:] == ["street.wav\t\t\t"]


def test_one_bad_recording_is_named_and_the_rest_goes_on(
    run: Run, checkpoint: Path, recordings: Path
) -> None:
    (recordings / "empty.wav").touch()
    code, out, err = run("detect", recordings, recordings / "none.wav", "-c", checkpoint)
    assert code == 1
    assert "street.wav" in out
    assert "empty.wav" not in out
    assert "none.wav" not in out
    lines = err.splitlines()
    assert lines[0].startswith(f"error: {recordings}/empty.wav: ")
    assert lines[1].startswith(f"error: {recordings}/none.wav: ")
    assert lines[2:] == ["2 of 4 recordings failed"]  # the errors are still on the screen


@pytest.mark.parametrize("command", ["detect", "tag"])
def test_who_watches_is_told_where_the_output_is(
    command: str,
    run: Run,
    checkpoint: Path,
    recordings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (recordings / "empty.wav").touch()
    told = f"done: 2 of 3 recordings: {tmp_path / 'found.csv'}"
    given = (command, recordings, "-c", checkpoint, "-o", tmp_path / "found.csv")
    assert told not in run(*given)[2]
    monkeypatch.setattr(errors, "_force_terminal", True)
    assert told in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", run(*given, "--restart")[2])


def test_a_class_that_is_not_there_names_the_command_that_lists_them(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = HTSATConfig(classes=11, embed_dim=8, depths=(1, 1, 1, 1), heads=(1, 1, 1, 1))
    save_checkpoint("my own.safetensors", HTSAT(config, tuple("abcdefghijk")))
    soundfile.write("a.wav", recording(1.0, RATE, 1), RATE)
    code, _, err = run("detect", "a.wav", "-c", "my own.safetensors", "--labels", "Unheard")
    hint = "`htsat-sed checkpoints info 'my own.safetensors' --labels` lists its classes"
    assert (code, err) == (2, f"error: --labels: no class 'Unheard' in this model; {hint}\n")


def test_a_folder_without_recordings(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    code, out, err = run("detect", tmp_path, "-c", checkpoint, "-f", "csv")
    assert code == 1
    assert out == "filename,onset,offset,event_label,score\n"
    assert err == f"error: {tmp_path}: holds no recordings: no file here has an audio suffix\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threshold", "high"], "wanted a number or LABEL=NUMBER, got 'high'"),
        (["--threshold", "Dgo=0.3"], "no class 'Dgo' in this model; did you mean 'Dog'?"),
        (["--threshold", "1.5"], "--threshold: wanted threshold in [0, 1], got 1.5"),
        (["--labels", "Bird"], "--labels: no class 'Bird' in this model; its classes are Dog · Cat · Rain"),
        (
            ["--labels", "{folder}/labels.txt"],
            "labels.txt: no class 'Hen' in this model; its classes are Dog",
        ),
        (
            ["--labels", "{folder}/labels.csv"],
            "the row of 'Baby cry' has more cells than columns: put a label",
        ),
        (
            ["--map", "{folder}/map.toml", "--labels", "Dog"],
            "--labels: no class 'Dog' in class map map; its classes are Pet",
        ),
        (["--format", "xml"], "wanted one of tsv, csv, jsonl"),
        (["-f", "tsv", "-f", "csv"], "several formats need a folder: name it with -o"),
        (["-o", "events.xyz"], "cannot determine the format of events.xyz: give --format"),
        (["--hop", "12"], "wanted a hop of more than 0 and at most 10 s, got 12"),
        (["--batch-size", "0"], "wanted auto or a number of at least 1, got '0'"),
        (
            ["--map", "desed"],
            "joins classes that the model lacks: 'Car alarm' and 49 more; is the map for another model?",
        ),
    ],
)
def test_wrong_usage(
    run: Run,
    checkpoint: Path,
    recordings: Path,
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("TERMINAL_WIDTH", "300")
    (tmp_path / "labels.txt").write_text("Dog\nHen\n")
    (tmp_path / "labels.csv").write_text("label\nBaby cry, infant cry\n")
    (tmp_path / "map.toml").write_text('Pet = ["Dog", "Cat"]\n')
    given = [argument.format(folder=tmp_path) for argument in arguments]
    code, out, err = run("detect", recordings, "-c", checkpoint, *given)
    assert (code, out) == (1 if "labels.csv" in given[-1] else 2, "")
    assert message in " ".join(err.split())


def test_missing_checkpoint(run: Run, recordings: Path) -> None:
    code, out, err = run("detect", recordings, "-c", "nothing.safetensors")
    assert (code, out) == (1, "")
    assert err.startswith("error: nothing.safetensors: no such file, and no checkpoint of that name")


def test_standard_input(
    run: Run, checkpoint: Path, recordings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, expected, _ = run("detect", recordings / "street.wav", "-c", checkpoint)
    with (recordings / "street.wav").open() as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        code, out, _ = run("detect", "-", "-c", checkpoint)
    assert code == 0
    assert out == expected.replace("street.wav", "stdin")


@pytest.mark.parametrize("form", ["tsv", "csv", "jsonl", "rttm", "audacity", "webvtt"])
def test_events_of_a_pipe_are_printed_while_it_goes_on(
    run: Run, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    sound, silence = recording(10.0, RATE, 1), np.zeros(10 * RATE)
    soundfile.write(tmp_path / "street.wav", np.concatenate([sound, silence, sound, sound]), RATE)
    _, expected, _ = run("detect", tmp_path / "street.wav", "-c", checkpoint, "-f", form)
    printed = threading.Event()
    written: list[str] = []

    def emit(text: str) -> None:
        written.append(text)
        if "Dog" in text:
            printed.set()

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 30 * RATE * 2:
                assert printed.wait(60)
            return super().read(size)

    class Input:
        buffer = Slow((tmp_path / "street.wav").read_bytes())
        isatty = staticmethod(lambda: False)

    monkeypatch.setattr(sys, "stdin", Input)
    monkeypatch.setattr(sys.modules["htsat_sed.cli.detect"], "emit", emit)
    code, _, err = run("detect", "-", "-c", checkpoint, "-f", form)
    assert (code, err) == (0, "")
    (tmp_path / "a").write_text(expected.replace("street.wav", "stdin"))
    (tmp_path / "b").write_text("".join(written))
    once, piped = (read_events(tmp_path / name, form) for name in ("a", "b"))
    assert list(once.values()) == list(piped.values())


@pytest.mark.parametrize(
    ("given", "computing", "reading"),
    [(("--threads", "1"), 1, 1), (("--threads", "2", "--jobs", "3"), 2, 3), (("--jobs", "1"), None, 1)],
)
def test_threads_and_jobs_bound_what_computes_and_what_reads(
    given: tuple[str, ...],
    computing: int | None,
    reading: int,
    run: Run,
    checkpoint: Path,
    recordings: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    readers: set[int] = set()
    at_once: list[int] = []

    @contextmanager
    def counted(*arguments: Any, **more: Any) -> Iterator[Any]:
        readers.add(threading.get_ident())
        at_once.append(len(readers))
        with open_recording(*arguments, **more) as stream:
            yield stream
        readers.discard(threading.get_ident())

    before = torch.get_num_threads()
    command = ("detect", recordings, "-c", checkpoint, "--batch-size", "2")
    try:
        _, expected, _ = run(*command)
        for i in range(6):
            soundfile.write(recordings / f"more {i}.wav", recording(1.0, RATE, i), RATE)
        monkeypatch.setattr(detector, "open_recording", counted)
        code, out, _ = run(*command, *given)
        assert code == 0
        assert torch.get_num_threads() == (computing or before)
    finally:
        torch.set_num_threads(before)
    assert len(at_once) == 8
    assert max(at_once) <= reading
    assert set(expected.splitlines()) <= set(out.splitlines())


def test_recordings_of_one_name_keep_apart(run: Run, checkpoint: Path, recordings: Path) -> None:
    twin = recordings / "night" / "street.wav"
    soundfile.write(twin, recording(2.0, RATE, 3), RATE)
    _, out, _ = run("detect", recordings / "street.wav", twin, "-c", checkpoint)
    names = {line.split("\t")[0] for line in out.splitlines()[1:]}
    assert names == {str(recordings / "street.wav"), str(twin)}


def test_tag_long_and_wide(run: Run, checkpoint: Path, recordings: Path, tmp_path: Path) -> None:
    code, out, _ = run("tag", recordings, "-c", checkpoint)
    assert code == 0
    rows = out.splitlines()
    assert rows[0] == "filename,event_label,score"
    assert len(rows) == 1 + 2 * 3
    scores = [float(row.rsplit(",", 1)[1]) for row in rows[1:4]]
    assert scores == sorted(scores, reverse=True)

    _, out, _ = run("tag", recordings, "-c", checkpoint, "--top", "1")
    assert out.splitlines() == [rows[0], rows[1], rows[4]]

    code, nothing, _ = run("tag", recordings, "-c", checkpoint, "--wide", "-o", tmp_path / "tags.csv")
    assert (code, nothing) == (0, "")
    wide = (tmp_path / "tags.csv").read_text().splitlines()
    assert wide[0] == 'filename,Dog,Cat,"Rain, light"'
    assert sorted(wide[1].split(",")[1:], key=float, reverse=True) == [
        row.rsplit(",", 1)[1] for row in rows[1:4]
    ]


@pytest.mark.parametrize("wide", [[], ["--wide"]])
def test_tag_writes_csv_or_tsv(
    run: Run, checkpoint: Path, recordings: Path, tmp_path: Path, wide: list[str]
) -> None:
    for name in ("tags.csv", "tags.tsv"):
        assert run("tag", recordings, *wide, "-c", checkpoint, "-o", tmp_path / name)[0] == 0
    assert "\t" in (tmp_path / "tags.tsv").read_text()
    assert read_tags(tmp_path / "tags.csv") == read_tags(tmp_path / "tags.tsv")


def test_tag_is_a_table(run: Run, checkpoint: Path, recordings: Path, tmp_path: Path) -> None:
    code, _, err = run("tag", recordings, "-c", checkpoint, "-o", tmp_path / "tags.parquet")
    assert (code, "tags are written as CSV or TSV" in err, list(tmp_path.glob("tags*"))) == (2, True, [])


def test_tag_writes_nothing_where_it_cannot(
    run: Run, checkpoint: Path, recordings: Path, tmp_path: Path
) -> None:
    code, _, err = run("tag", recordings, "-c", checkpoint, "-o", tmp_path / "no" / "tags.csv")
    assert code == 1
    assert err == f"error: {tmp_path}/no/tags.csv: cannot be written: its folder does not exist\n"


def test_invalid_utf8_in_a_name(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "caf\udce9.wav"
    soundfile.write(tmp_path / "a.wav", recording(1.0, RATE, 1), RATE)
    (tmp_path / "a.wav").rename(path)
    code, out, err = run("detect", tmp_path, tmp_path / "none\udcff.wav", "-c", checkpoint)
    assert code == 1
    assert out.splitlines()[1].startswith("caf\\udce9.wav\t")
    assert err.startswith(f"error: {tmp_path}/none\\udcff.wav: ")


def test_version_and_debug(run: Run, recordings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version")[1].startswith("htsat-sed 0.")
    with pytest.raises(Exception, match="no such file, and no checkpoint"):
        run("detect", recordings, "-c", "nothing", "--debug")
