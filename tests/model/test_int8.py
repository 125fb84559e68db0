"""The int8 core: scores near those of float32, the same in every run, and never those of another model."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
import torch
from golden.reference_state import recording
from rule_made import by_rule

from htsat_sed import CheckpointError, Detector, Execution, load_checkpoint
from htsat_sed.cli import main
from htsat_sed.model.catalogue import resolve_checkpoint
from htsat_sed.model.checkpoint import save_checkpoint
from htsat_sed.model.htsat import HTSAT, HTSATConfig, fingerprint
from htsat_sed.model.runtime import Inference

pytest.importorskip("openvino")

from htsat_sed.model.int8 import calibrate, int8_path, load_int8, save_int8
from htsat_sed.model.openvino_graph import openvino_graph

CPU = torch.device("cpu")
TINY = HTSATConfig(classes=3, embed_dim=8, depths=(1, 1, 1, 1), heads=(1, 1, 1, 1))
EXAMPLE = Path(__file__).parents[2] / "examples" / "home.flac"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run `htsat-sed ...` with a cache of its own: exit code, standard output, standard error."""
    monkeypatch.setenv("HTSAT_SED_HOME", str(tmp_path / "cache"))

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["htsat-sed", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        return int(stopped.value.code or 0), out, err

    return call


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    model = by_rule(HTSAT(TINY), seed=3)
    save_checkpoint(tmp_path / "tiny.safetensors", model)
    return tmp_path / "tiny.safetensors"


@pytest.mark.long
def test_the_bundled_checkpoint_stays_close_to_float32(run: Run) -> None:
    pytest.importorskip("nncf")
    code, out, err = run("checkpoints", "calibrate", EXAMPLE)
    model = load_checkpoint(resolve_checkpoint())
    assert (code, out) == (0, f"{int8_path(model)}\n")
    assert err.startswith(
        "note: calibrated on 2 windows; on them, presence scores differ from float32 by 0.00"
    )
    exact = Detector(model, device="cpu", execution=Execution(runtime="torch"))
    int8 = Detector(model, device="cpu", execution=Execution(precision="int8"))
    assert int8.runtime == "openvino"
    difference = abs(int8.presence_map(EXAMPLE).scores - exact.presence_map(EXAMPLE).scores)
    assert 0 < difference.mean() < 0.01
    # Two windows are few, as the command warns: what was found is found, and a faint class may join it.
    assert {event.label for event in exact.detect(EXAMPLE)} <= {event.label for event in int8.detect(EXAMPLE)}


@pytest.mark.long
def test_the_same_recordings_give_the_same_bytes(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    one, two = tmp_path / "1.wav", tmp_path / "2.wav"
    for seed, path in enumerate((one, two)):
        soundfile.write(path, recording(23.0, 32_000, seed), 32_000)
    found = []
    for recordings in ((one, two), (two, one)):
        code, out, err = run("checkpoints", "calibrate", *recordings, "-c", checkpoint, "--windows", 5)
        assert code == 0
        assert "calibrated on 4 windows; on 1 other, presence scores differ from float32 by 0." in err
        assert "warning: " in err
        found.append(Path(out.strip()).read_bytes())
    assert found[0] == found[1]


def test_a_run_goes_on_with_its_own_calibration_alone(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    model = load_checkpoint(checkpoint)
    path = save_int8(model, openvino_graph(model), windows=1)  # all that matters here is that it is a graph
    assert path == int8_path(model)
    soundfile.write(tmp_path / "a.wav", recording(3.0, 32_000, 1), 32_000)
    detect = ("detect", tmp_path / "a.wav", tmp_path / "gone.wav", "-c", checkpoint, "--precision", "int8")
    detect = (*detect, "-o", tmp_path / "events.csv")
    assert run(*detect)[0] == 1
    events = (tmp_path / "events.csv").read_bytes()
    code, _, err = run(*detect)
    assert (code, (tmp_path / "events.csv").read_bytes()) == (1, events)
    assert "1 of 2 recordings are done already" in err
    journal = tmp_path / "events.csv.journal"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:2]))  # as if it had been stopped after a.wav
    save_int8(model, openvino_graph(model), windows=2)
    code, _, err = run(*detect)
    assert code == 2
    assert "the unfinished run of 1 recordings here differs in calibration: sha256 " in err


def test_a_model_finds_its_own_calibration_alone(run: Run, checkpoint: Path) -> None:
    model = load_checkpoint(checkpoint)
    own = save_int8(model, openvino_graph(model), windows=1)
    load_int8(model)
    with torch.no_grad():
        model.tscam_conv.bias[0] += 1e-3
    with pytest.raises(
        CheckpointError, match="not calibrated for int8 yet; run `htsat-sed checkpoints calib"
    ):
        Inference(model, CPU, Execution(precision="int8"))
    shutil.copy(own, int8_path(model))
    with pytest.raises(CheckpointError, match="calibrate the checkpoint again: made from another model"):
        load_int8(model)
    int8_path(model).write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="is a broken int8 core, calibrate the checkpoint again: "):
        load_int8(model)


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="Windows has no such permissions")
def test_a_calibration_that_others_could_write_is_refused(
    run: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_checkpoint(checkpoint)
    mask = os.umask(0)  # whatever the user's mask, the tool's own files are not writable for others
    try:
        path = save_int8(model, openvino_graph(model), windows=1)
    finally:
        os.umask(mask)
    load_int8(model)
    for each in (path, path.parent):
        for mode in (0o020, 0o002):
            each.chmod(each.stat().st_mode | mode)
            code, out, err = run("detect", EXAMPLE, "-c", checkpoint, "--precision", "int8")
            line = (
                f"error: {each}: other users can write it: run `chmod go-w {each}` if its content is yours\n"
            )
            assert (code, out, err) == (1, "", line)
            each.chmod(each.stat().st_mode & ~mode)
    own = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: own + 1)
    if own:
        with pytest.raises(CheckpointError, match="belongs to another user"):
            load_int8(model)
    else:
        load_int8(model)  # root may write anything anyway


def test_a_fingerprint_tells_weights_and_configuration(checkpoint: Path) -> None:
    model, same = load_checkpoint(checkpoint), load_checkpoint(checkpoint)
    same.post_processing = {"threshold": 0.1}
    assert fingerprint(same) == fingerprint(model)
    with torch.no_grad():
        same.backbone.norm.weight[3] += 1e-6
    assert fingerprint(same) != fingerprint(model)
    other = HTSAT(HTSATConfig(**{**vars(TINY), "fmin": 60.0}))
    other.load_state_dict(model.state_dict())
    assert fingerprint(other) != fingerprint(model)


def test_what_is_missing_is_told_in_one_line(
    run: Run, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = run("detect", EXAMPLE, "-c", checkpoint, "--precision", "int8")
    path = int8_path(load_checkpoint(checkpoint))
    assert (code, out) == (1, "")
    assert err == (
        f"error: {path}: does not exist: this checkpoint is not calibrated for int8 yet; run `htsat-sed "
        "checkpoints calibrate RECORDINGS` once, with the same -c\n"
    )
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = run("checkpoints", "calibrate", EXAMPLE)
    assert (code, err) == (2, "error: calibrating needs nncf: pip install 'htsat-sed[int8]'\n")


@pytest.mark.parametrize("command", ["detect", "tag", "plot", "evaluate", "tune"])
def test_every_command_that_detects_takes_a_precision(
    run: Run, checkpoint: Path, tmp_path: Path, command: str
) -> None:
    labels = tmp_path / "labels.tsv"
    labels.write_text("filename\tonset\toffset\tevent_label\nhome.flac\t1.0\t2.0\tclass_000\n")
    inputs = (labels, "--audio", EXAMPLE.parent) if command in ("evaluate", "tune") else (EXAMPLE,)
    code, out, err = run(command, *inputs, "-c", checkpoint, "--precision", "int8")
    assert (code, out) == (1, "")
    assert "this checkpoint is not calibrated for int8 yet" in err


def test_silence_is_nothing_to_calibrate_on(run: Run, checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    soundfile.write(tmp_path / "a.wav", torch.zeros(32_000).numpy(), 32_000)
    code, out, err = run("checkpoints", "calibrate", tmp_path / "a.wav", "-c", checkpoint)
    assert (code, out, err) == (
        1,
        "",
        f"error: {tmp_path / 'a.wav'}: contains no sound to calibrate on\n",
    )
    with pytest.raises(ValueError, match="wanted at least one window to calibrate on, got none"):
        calibrate(load_checkpoint(checkpoint), [])
