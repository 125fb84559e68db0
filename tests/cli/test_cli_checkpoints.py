from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import soundfile
import torch
from golden.reference_state import recording
from rule_made import official_state, write_lightning

from htsat_sed import __version__
from htsat_sed.model import catalogue
from htsat_sed.model.catalogue import CATALOGUE
from htsat_sed.model.checkpoint import load_checkpoint, read_info, save_checkpoint
from htsat_sed.model.htsat import HTSAT, HTSATConfig

TINY = HTSATConfig(embed_dim=16, depths=(1, 1, 1, 1), heads=(1, 2, 2, 4), classes=3)
LABELS = ("Dog", "Rain", "Speech, male")

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run `htsat-sed checkpoints ...`: exit code, standard output, standard error."""
    monkeypatch.setenv("HTSAT_SED_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(catalogue, "__file__", str(tmp_path / "package" / "model" / "catalogue.py"))
    return partial(run, "checkpoints")


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "ours.safetensors"
    save_checkpoint(
        path,
        HTSAT(TINY, LABELS),
        post_processing={"threshold": 0.3, "classes": {"Dog": {"min_event": 0.2}}},
        provenance={"data": "none"},
    )
    return path


@pytest.fixture
def official(tmp_path: Path) -> Path:
    path = tmp_path / "official.ckpt"
    write_lightning(path, official_state(TINY, seed=5))
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_list_in_a_pipe_is_a_table_of_values(run: Run, tmp_path: Path):
    there = tmp_path / "home" / CATALOGUE[0].file_name
    there.parent.mkdir()
    there.write_bytes(b"12345")
    code, out, err = run("list")
    assert (code, err) == (0, "")
    rows = [line.split("\t") for line in out.splitlines()]
    assert rows[0] == ["name", "state", "size", "path", "licence", "summary"]
    assert [row[:4] for row in rows[1:]] == [
        ["home", "not in this installation", "", ""],
        ["audioset", "downloaded", "5", str(there)],
        ["audioset-pseldnets", "not downloaded", "127072759", ""],
    ]
    assert [row["name"] for row in json.loads(run("list", "--json")[1])] == [row[0] for row in rows[1:]]


def test_info_describes_a_checkpoint(run: Run, ours: Path):
    code, out, err = run("info", ours)
    assert (code, err) == (0, "")
    lines = dict(line.split(": ", 1) for line in out.splitlines())
    assert lines["path"] == str(ours)
    assert lines["kind"] == "htsat-sed"
    assert lines["sha256"] == sha256(ours)
    assert lines["config.sample_rate"] == "32000"
    assert lines["config.depths"] == "[1, 1, 1, 1]"
    assert lines["config.loss"] == "clip_bce"
    assert lines["post_processing.classes.Dog"] == "min_event 0.2"
    assert lines["provenance.data"] == "none"
    assert lines["labels"] == "3 (Dog · Rain · Speech, male)"


def test_info_as_json(run: Run, ours: Path):
    code, out, _ = run("info", ours, "--json")
    description = json.loads(out)
    assert code == 0
    assert description["labels"] == list(LABELS)
    assert description["post_processing"] == {"threshold": 0.3, "classes": {"Dog": {"min_event": 0.2}}}
    assert description["size"] == ours.stat().st_size
    assert description["parameters"] == sum(p.numel() for p in HTSAT(TINY).parameters())


def test_info_of_an_official_file(run: Run, official: Path):
    code, out, _ = run("info", official)
    assert code == 0
    assert "kind: official\n" in out
    assert "post_processing: none\n" in out
    assert "labels: 3 (class_000 · class_001 · class_002)\n" in out


def test_the_labels_alone_make_a_label_file(run: Run, ours: Path, official: Path, tmp_path: Path):
    _, out, _ = run("info", ours, "--labels")
    assert out == "Dog\nRain\nSpeech, male\n"
    (tmp_path / "labels.txt").write_text(out, encoding="utf-8")
    code, _, _ = run("convert", official, tmp_path / "out.safetensors", "--labels", tmp_path / "labels.txt")
    assert code == 0
    assert load_checkpoint(tmp_path / "out.safetensors").labels == LABELS


def test_convert_keeps_the_weights_and_says_where_they_come_from(run: Run, official: Path, tmp_path: Path):
    target = tmp_path / "out.safetensors"
    code, out, err = run("convert", official, target)
    assert (code, out) == (0, "")
    assert err == f"{target}: 3 classes, 32000 Hz, {target.stat().st_size / 1e6:.1f} MB\n"
    theirs, converted = load_checkpoint(official), load_checkpoint(target)
    for key, array in theirs.state_dict().items():
        assert torch.equal(converted.state_dict()[key], array), key
    assert converted.provenance == {
        "source": "official.ckpt",
        "sha256": sha256(official),
        "made_by": f"htsat-sed {__version__}",
    }


def test_convert_takes_what_the_file_does_not_tell(run: Run, official: Path, tmp_path: Path):
    target, thresholds = tmp_path / "out.safetensors", tmp_path / "thresholds.toml"
    thresholds.write_text("threshold = 0.25\n[classes.class_001]\nmedian_filter = 0.9\n")
    code, _, _ = run(
        *("convert", official, target, "--float16", "--hop-length", 160, "--loss", "clip_ce"),
        *("--post-processing", thresholds),
    )
    info = read_info(target)
    assert code == 0
    assert info.config == replace(TINY, hop_length=160, loss="clip_ce")
    assert info.dtype == "float16"
    assert info.post_processing == {"threshold": 0.25, "classes": {"class_001": {"median_filter": 0.9}}}


def test_convert_of_a_known_download_records_its_page_and_licence(
    run: Run, official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    entry = replace(CATALOGUE[0], file_name=official.name, sha256=sha256(official))
    monkeypatch.setattr(catalogue, "CATALOGUE", (entry,))
    code, out, err = run("pull", "audioset", "--file", official)
    assert (code, err) == (0, "")
    assert out == f"{tmp_path / 'home' / 'official.ckpt'}\n"
    assert run("convert", "audioset", tmp_path / "out.safetensors")[0] == 0
    provenance = read_info(tmp_path / "out.safetensors").provenance
    assert provenance["page"] == entry.page
    assert provenance["licence"] == entry.licence


def test_converting_our_own_file_keeps_all_it_says(run: Run, ours: Path, tmp_path: Path):
    assert run("convert", ours, tmp_path / "half.safetensors", "--float16")[0] == 0
    before, after = read_info(ours), read_info(tmp_path / "half.safetensors")
    assert after == replace(before, dtype="float16")
    assert (tmp_path / "half.safetensors").stat().st_size < 0.6 * ours.stat().st_size


def test_export_is_checked_on_a_recording(run: Run, ours: Path, tmp_path: Path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    soundfile.write(tmp_path / "a.wav", recording(12.0, 16_000, seed=2), 16_000)
    code, out, err = run("export", tmp_path / "m.onnx", "-c", ours, "--audio", tmp_path / "a.wav")
    assert (code, out) == (0, "")
    assert f"{tmp_path / 'm.onnx'}: opset 17, 3 classes, " in err
    about = {entry.key: entry.value for entry in onnx.load(tmp_path / "m.onnx").metadata_props}
    assert json.loads(about["labels"]) == list(LABELS)
    assert json.loads(about["provenance"])["exported_from"]["sha256"] == sha256(ours)


def test_export_tells_what_is_missing(run: Run, ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = run("export", tmp_path / "m.onnx", "-c", ours)
    assert code == 2
    assert err == "error: the export needs onnx: pip install 'htsat-sed[onnx]'\n"


def test_average(run: Run, ours: Path, tmp_path: Path):
    model = load_checkpoint(ours)
    with torch.no_grad():
        model.tscam_conv.bias += 1.0
    other, target = tmp_path / "other.safetensors", tmp_path / "out.safetensors"
    save_checkpoint(other, model)
    code, out, _ = run("average", ours, other, "-o", target)
    assert (code, out) == (0, "")
    averaged = load_checkpoint(target)
    torch.testing.assert_close(averaged.tscam_conv.bias, model.tscam_conv.bias - 0.5)
    assert averaged.post_processing == model.post_processing
    assert [source["sha256"] for source in averaged.provenance["average_of"]] == [sha256(ours), sha256(other)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("info", "none.ckpt"), "none.ckpt: no such file, and no checkpoint of that name; names are home, "),
        (
            ("info", "audioset"),
            "audioset: not downloaded yet: run `htsat-sed checkpoints pull audioset` first",
        ),
        (
            ("info", "home"),
            "home: this installation has no bundled checkpoint: give one with -c, or get one ",
        ),
        (("info", "{labels}"), "{labels}: is not a checkpoint: neither safetensors nor a PyTorch file"),
        (("average", "{ours}", "{official}", "-o", "out.safetensors"), "{official}: has other labels than "),
        (
            ("convert", "{official}", "none/out.safetensors"),
            "none/out.safetensors: cannot be written: its folder",
        ),
        (("pull", "audioset", "--file", "{labels}"), "{labels}: is another file: its sha256 is "),
    ],
)
def test_what_fails_exits_with_1_and_one_line(
    run: Run,
    ours: Path,
    official: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
):
    monkeypatch.chdir(tmp_path)
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\n")
    files = {"ours": ours, "official": official, "labels": labels}
    code, out, err = run(*(argument.format(**files) for argument in arguments))
    assert (code, out) == (1, "")
    assert err.startswith("error: " + message.format(**files))
    assert err.count("\n") == 1
    assert not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("export", "out.pt"), "the name of the output must end in .onnx, got out.pt"),
        (
            ("convert", "{official}", "out.ckpt"),
            "the name of the output must end in .safetensors, got out.ckpt",
        ),
        (
            ("convert", "{official}", "o.safetensors", "--loss", "bce"),
            "wanted --loss clip_bce or clip_ce, got bce",
        ),
        (
            ("convert", "{official}", "o.safetensors", "--labels", "{labels}"),
            "wanted 3 labels, one per class of ",
        ),
        (
            ("convert", "{ours}", "o.safetensors", "--sample-rate", "16000"),
            "sample_rate 16000 contradicts the checkpoint, which says 32000: ",
        ),
        (("average", "{ours}", "-o", "o.safetensors"), "wanted at least two checkpoints to average, got 1"),
        (
            ("pull", "audiosat"),
            "no checkpoint 'audiosat' to download: available are audioset, audioset-pseldnets; ",
        ),
    ],
)
def test_wrong_usage_exits_with_2(
    run: Run, ours: Path, official: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
):
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\n")
    files = {"ours": ours, "official": official, "labels": labels}
    code, out, err = run(*(argument.format(**files) for argument in arguments))
    assert (code, out) == (2, "")
    assert err.startswith("error: " + message.format(**files))
