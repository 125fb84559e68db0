"""Runtimes: whatever computes a model, its scores are those of torch."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from golden.reference_state import recording
from rule_made import by_rule

from htsat_sed import CheckpointError, Detector, Execution
from htsat_sed.cli import main
from htsat_sed.errors import UsageError
from htsat_sed.model import onnx_core, runtime
from htsat_sed.model.htsat import HTSAT, HTSATConfig
from htsat_sed.model.onnx_core import export_onnx, made_sound
from htsat_sed.model.runtime import Inference

CPU = torch.device("cpu")
EXAMPLE = Path(__file__).parents[2] / "examples" / "home.flac"
# The second block of a stage is shifted, the third is not: tokens change their order and back.
SMALL = HTSATConfig(classes=3, embed_dim=16, depths=(1, 2, 3, 2), heads=(1, 2, 2, 4))
SINGLE_LABEL = HTSATConfig(
    classes=5,
    sample_rate=16_000,
    hop_length=160,
    embed_dim=8,
    depths=(2, 1, 1, 1),
    heads=(2, 2, 2, 2),
    loss="clip_ce",
)


def fresh(config: HTSATConfig) -> HTSAT:
    return by_rule(HTSAT(config).eval(), seed=2)  # scores all over [0, 1]


def windows(config: HTSATConfig, count: int) -> torch.Tensor:
    samples = recording(config.window_seconds * count, config.sample_rate, seed=3)
    return torch.from_numpy(samples.astype(np.float32).reshape(count, -1))


@pytest.mark.parametrize("config", [SMALL, SINGLE_LABEL], ids=["small", "single-label"])
@pytest.mark.parametrize(("name", "package"), [("openvino", "openvino"), ("onnx", "onnxruntime")])
def test_scores_are_those_of_torch(name: runtime.Runtime, package: str, config: HTSATConfig) -> None:
    pytest.importorskip(package)
    model, waveforms = fresh(config), windows(config, 3)
    wanted = Inference(model, CPU, Execution(runtime="torch"))
    found = Inference(model, CPU, Execution(runtime=name), batch_size=2)
    expected = wanted.presence_scores(waveforms)
    assert expected.std() > 0.1
    single_label = config.loss == "clip_ce"
    assert torch.allclose(expected.sum(dim=2), torch.tensor(1.0)) == single_label
    for batch in (slice(0, 3), slice(0, 1), slice(1, 3)):
        scores = found.presence_scores(waveforms[batch])
        assert scores.dtype == torch.float32
        torch.testing.assert_close(scores, expected[batch], rtol=0, atol=1e-4)
    clips = [waveforms[:1], waveforms[1:2, : config.window_samples // 3]]
    torch.testing.assert_close(found.clip_scores(clips), wanted.clip_scores(clips), rtol=0, atol=1e-4)


def test_openvino_scores_a_window_the_same_in_any_company() -> None:
    pytest.importorskip("openvino")
    waveforms = windows(SMALL, 3)
    found = Inference(fresh(SMALL), CPU, Execution(runtime="openvino"))
    together = found.presence_scores(waveforms)
    alone = [found.presence_scores(waveform[None]) for waveform in waveforms]
    assert torch.equal(together, torch.cat(alone))
    with ThreadPoolExecutor(3) as threads:
        side_by_side = threads.map(found.presence_scores, [*waveforms[:, None], waveforms] * 3)
    assert torch.equal(torch.cat(list(side_by_side)), torch.cat([together] * 6))


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_bfloat16_stays_close_and_gives_float32(name: runtime.Runtime) -> None:
    if name == "openvino":
        pytest.importorskip("openvino")
        from htsat_sed.model.torch_core import has_bfloat16

        if not has_bfloat16():
            pytest.skip("this processor does not compute in bfloat16")
    model, waveforms = fresh(SMALL), windows(SMALL, 2)
    full = Inference(model, CPU, Execution(runtime="torch")).presence_scores(waveforms)
    half = Inference(model, CPU, Execution(runtime=name, precision="bfloat16")).presence_scores(waveforms)
    assert half.dtype == torch.float32
    difference = (half - full).abs()
    assert 0 < difference.mean() < 0.005
    assert difference.max() < 0.05


def test_a_run_says_that_it_computes_in_bfloat16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundled checkpoint hears the same events; scores move by less than 0.001 on average."""
    pytest.importorskip("openvino")
    from htsat_sed.model.torch_core import has_bfloat16

    if not has_bfloat16():
        pytest.skip("this processor does not compute in bfloat16")
    maps, errors = [], []
    for precision in ("float32", "bfloat16"):
        out = tmp_path / precision
        gone = str(tmp_path / "gone.wav")  # a failure keeps the journal
        command = ["detect", str(EXAMPLE), gone, "-o", str(out / "events.tsv"), "--scores", str(out / "maps")]
        monkeypatch.setattr(sys, "argv", ["htsat-sed", *command, "--device", "cpu", "--precision", precision])
        with pytest.raises(SystemExit):
            main()
        errors.append(capsys.readouterr().err)
        settings = (out / "events.tsv.journal").read_text().splitlines()[0]
        assert f'"precision": "{precision}"' in settings
        assert '"runtime": "openvino"' in settings
        with np.load(next((out / "maps").glob("*.npz"))) as found:
            maps.append(found["scores"])
    labels = [
        [line.split("\t")[3] for line in (tmp_path / each / "events.tsv").read_text().splitlines()]
        for each in ("float32", "bfloat16")
    ]
    assert labels[0] == labels[1]
    assert 0 < np.abs(maps[1] - maps[0]).mean() < 0.001
    assert "note: openvino computes in bfloat16\n" in errors[1]
    assert "computes in" not in errors[0]


def test_bfloat16_on_a_processor_without_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In OpenVINO, which would compute in float32 instead; in torch, bfloat16 is emulated for who asks."""
    pytest.importorskip("openvino")
    able = {"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    for asked in ("auto", "openvino"):
        execution = Execution(runtime=asked, precision="bfloat16")
        with pytest.raises(UsageError, match=r"needs AVX512_BF16 or AMX, which this CPU \(.+\) lacks"):
            Detector(fresh(SINGLE_LABEL), device="cpu", execution=execution)
    Detector(fresh(SINGLE_LABEL), device="cpu", execution=Execution(runtime="torch", precision="bfloat16"))


def test_compile_leaves_the_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled_modules = []  # compiling itself takes a C compiler and a minute
    monkeypatch.setattr(torch, "compile", lambda module: compiled_modules.append(module) or module)
    model, waveforms = fresh(SINGLE_LABEL), windows(SINGLE_LABEL, 2)
    plain = Inference(model, CPU, Execution(runtime="torch")).presence_scores(waveforms)
    compiled = Inference(model, CPU, Execution(compile=True))
    assert compiled.runtime == "torch"
    assert len(compiled_modules) == 1
    torch.testing.assert_close(compiled.presence_scores(waveforms), plain, rtol=0, atol=1e-5)


def test_auto_is_torch_where_openvino_cannot_be_loaded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: str) -> None:
        raise ImportError("libtbb.so.12: cannot open shared object file", name="openvino")

    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(runtime, "import_module", broken)
    runtime._openvino_loads.cache_clear()
    assert [Execution().on(CPU), Execution(precision="bfloat16").on(CPU)] == ["torch", "torch"]
    runtime._openvino_loads.cache_clear()
    (message,) = caplog.messages
    assert message.startswith("openvino: this library cannot be loaded (libtbb.so.12")
    assert message.endswith("; torch computes instead, more slowly")


def test_auto_is_openvino_on_a_cpu_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"openvino", "onnxruntime"}
    monkeypatch.setattr(runtime, "_openvino_loads", lambda: True)
    monkeypatch.setattr(runtime.importlib.util, "find_spec", lambda name: name if name in installed else None)
    assert Execution().on(CPU) == "openvino"
    assert Execution().on(torch.device("cuda")) == "torch"
    assert Execution(precision="bfloat16").on(CPU) == "openvino"
    assert Execution(precision="bfloat16").on(torch.device("cuda")) == "torch"
    assert Execution(compile=True).on(CPU) == "torch"
    assert Execution(runtime="onnx").on(CPU) == "onnx"
    assert Execution(precision="int8").on(CPU) == "openvino"
    installed.clear()
    assert Execution().on(CPU) == "torch"
    with pytest.raises(ValueError, match=r"needs onnxruntime: pip install 'htsat-sed\[onnx\]'"):
        Execution(runtime="onnx").on(CPU)
    with pytest.raises(ValueError, match=r"int8 needs openvino: pip install 'htsat-sed\[openvino\]'"):
        Execution(precision="int8").on(CPU)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"runtime": "tflite"}, "wanted a runtime, one of auto, torch, openvino, onnx; got 'tflite'"),
        ({"precision": "int4"}, "wanted a precision, one of float32, bfloat16, float16, int8; got 'int4'"),
        ({"runtime": "openvino", "precision": "float16"}, "the runtime openvino does not support float16"),
        ({"runtime": "onnx", "precision": "bfloat16"}, "the runtime onnx does not support bfloat16"),
        ({"runtime": "onnx", "compile": True}, "the runtime onnx does not support compile"),
        (
            {"runtime": "onnx", "precision": "int8"},
            "int8 needs the runtime openvino, got the runtime onnx",
        ),
        ({"precision": "int8", "compile": True}, "int8 needs the runtime openvino, got compile"),
    ],
)
def test_what_does_not_go_together_is_refused(values: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Execution(**values)


def test_what_a_device_cannot_do_is_refused() -> None:
    with pytest.raises(ValueError, match="float16 runs on GPUs only: choose bfloat16 or float32 on a CPU"):
        Execution(precision="float16").on(CPU)
    with pytest.raises(ValueError, match="the runtime openvino runs on CPUs only, got the device cuda"):
        Execution(runtime="openvino").on(torch.device("cuda"))
    with pytest.raises(ValueError, match="int8 runs on CPUs only, got the device cuda"):
        Execution(precision="int8").on(torch.device("cuda"))


def test_a_detector_says_what_computes_it() -> None:
    execution = Execution(runtime="torch", precision="bfloat16")
    detector = Detector(fresh(SMALL), device="cpu", execution=execution)
    assert (detector.runtime, detector.execution.precision) == ("torch", "bfloat16")


def test_export_describes_itself_and_takes_any_batch(tmp_path: Path) -> None:
    onnx, onnxruntime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    model, waveforms = fresh(SINGLE_LABEL), windows(SINGLE_LABEL, 3)
    model.post_processing = {"threshold": 0.25}
    path = tmp_path / "model.onnx"
    assert 0 < export_onnx(path, model, waveforms, opset=18, provenance={"data": "made"}) < 1e-4

    about = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(about["labels"]) == list(model.labels)
    assert HTSATConfig(**json.loads(about["config"])).sample_rate == 16_000
    assert (about["sample_rate"], about["window_seconds"], about["token_seconds"]) == (
        "16000",
        "10",
        "0.3125",
    )
    assert json.loads(about["post_processing"]) == {"threshold": 0.25}
    assert json.loads(about["provenance"]) == {"data": "made"}
    assert onnx.load(path).opset_import[0].version == 18

    session = onnxruntime.InferenceSession(path)
    logmel = model.frontend(waveforms)
    with torch.inference_mode():
        expected = model(waveforms)
    for count in (1, 3):
        presence, clip, embedding = session.run(None, {"logmel": logmel[:count].numpy()})
        np.testing.assert_allclose(presence, expected.presence_logits[:count].softmax(-1), rtol=0, atol=1e-4)
        np.testing.assert_allclose(clip, expected.clip_logits[:count].softmax(-1), rtol=0, atol=1e-4)
        assert embedding.shape == (count, 64)


def test_openvino_reads_the_export(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = fresh(SINGLE_LABEL)
    path = tmp_path / "model.onnx"
    export_onnx(path, model, made_sound(SINGLE_LABEL))
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    waveforms = windows(SINGLE_LABEL, 2)
    presence = compiled({"logmel": model.frontend(waveforms).numpy()})["presence"]
    with torch.inference_mode():
        expected = model(waveforms).presence_logits.softmax(-1)
    np.testing.assert_allclose(presence, expected, rtol=0, atol=1e-4)


def test_an_export_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnx_core, "TOLERANCE", 0.0)
    with pytest.raises(CheckpointError, match=r"model\.onnx: not written: its scores differ by "):
        export_onnx(tmp_path / "model.onnx", fresh(SINGLE_LABEL), made_sound(SINGLE_LABEL))
    assert not (tmp_path / "model.onnx").exists()


def test_an_opset_out_of_range_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="wanted an ONNX opset of 17 to 20, got 9"):
        export_onnx(tmp_path / "model.onnx", fresh(SINGLE_LABEL), made_sound(SINGLE_LABEL), opset=9)


REPORTED = """
import sys
from importlib.machinery import ModuleSpec
def note(name):
    class Telemetry:
        def __init__(self, *args, **kwargs): print("reported by", name)
        def __getattr__(self, _): return lambda *args, **kwargs: print("reported by", name)
    return Telemetry
class Finder:  # stands for openvino_telemetry, installed or not
    @staticmethod
    def find_spec(name, path=None, target=None):
        return ModuleSpec(name, Finder, is_package=True) if name.startswith("openvino_telemetry") else None
    @staticmethod
    def create_module(spec): return None
    @staticmethod
    def exec_module(module): module.Telemetry = note("OpenVINO"); module.backend_ga4 = None
sys.meta_path.insert(0, Finder)
"""


@pytest.mark.parametrize("host", ["", "import openvino_telemetry"], ids=["alone", "beside a program's own"])
def test_nothing_is_reported_to_anybody(tmp_path: Path, host: str) -> None:
    """Both would leave an identifier of the user on the disk, and send it; a program's own import works."""
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    lines = [
        host,
        "import htsat_sed, htsat_sed.model.openvino_core, openvino, onnxruntime",
        "import openvino_telemetry",
        "print(openvino_telemetry.__name__)",
    ]
    script = REPORTED + "\n".join(lines)
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    kept = {name: value for name, value in os.environ.items() if name not in ("CI", "ORT_DISABLE_TELEMETRY")}
    done = subprocess.run([sys.executable, "-c", script], env=kept | home, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "openvino_telemetry\n", "")
    assert list(tmp_path.iterdir()) == []
