"""What int8 would gain and cost in OpenVINO, beside float32 on the same recordings.

Calibrates on the first recordings of a folder that `htsat-sed soundscapes` made, and scores the others:
deviation of the presence maps from float32, and F1 with the checkpoint's own post-processing. Two ways:
`static` is what `--precision int8` does; `dynamic` stores weights in int8 and has OpenVINO quantise
activations as they come, in groups, which needs no calibration. Speed is that of one
window in one thread (processor time, medians over turns), for the checkpoint and for the full-size model
with random weights.

    pip install 'htsat-sed[int8]'
    htsat-sed soundscapes recipes/home.toml --data homesounds/ -o soundscapes/ --count 240
    python bench/int8.py soundscapes/ [--calibration 60] [--repeats 15]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from htsat_sed import HtsatSedError, load_checkpoint
from htsat_sed.annotations import read_durations, read_events
from htsat_sed.audio import open_recording, windows
from htsat_sed.detection.detector import default_post_processing
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.evaluation.evaluate import evaluate_strong
from htsat_sed.evaluation.report import Settings
from htsat_sed.model.catalogue import resolve_checkpoint
from htsat_sed.model.htsat import FRAMES, HTSAT, HTSATConfig
from htsat_sed.model.int8 import calibrate
from htsat_sed.model.openvino_graph import openvino_graph
from htsat_sed.model.openvino_import import openvino, ops
from htsat_sed.model.torch_core import core_input

Array = NDArray[np.float32]
Infer = Callable[[Array], Array]
GROUP = 128  # activations that share a scale; the fastest of 32, 64 and 128


@torch.inference_mode()
def read(model: HTSAT, recording: Path) -> Array:
    """First window of a recording as the core takes it: (1, 1024, 64)."""
    length = model.config.window_samples
    with open_recording(recording, model.config.sample_rate) as stream:
        samples = next(iter(windows(stream, window=length, hop=length))).samples
    waveform = torch.from_numpy(np.pad(samples, (0, length - len(samples))))[None]
    return core_input(model, waveform).numpy()


def int8_weights(graph: openvino.Model) -> openvino.Model:
    """The graph with the weights of its linear layers in int8, one scale a row."""
    graph = graph.clone()
    for op in graph.get_ordered_ops():
        weight = op.input_value(1).get_node() if op.get_type_name() == "MatMul" else None
        if weight is not None and weight.get_type_name() == "Constant":
            values = weight.data
            scale = np.abs(values).max(axis=1, keepdims=True).clip(1e-12) / 127
            rounded = ops.constant((values / scale).round().astype(np.int8))
            op.input(1).replace_source_output(
                ops.multiply(ops.convert(rounded, np.float32), ops.constant(scale)).output(0)
            )
    graph.validate_nodes_and_infer_types()
    return graph


def ready(graph: openvino.Model, **options: Any) -> Infer:
    """The graph, compiled for one thread."""
    compiled = openvino.Core().compile_model(
        graph,
        "CPU",
        {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": "1", "NUM_STREAMS": "1", **options},
    )
    request = compiled.create_infer_request()
    return lambda logmel: np.array(request.infer({0: logmel})[0])


def variants(model: HTSAT, calibration: Sequence[Array]) -> dict[str, Infer]:
    """The model in float32 and in int8."""
    graph = openvino_graph(model)
    return {
        "float32": ready(graph),
        "int8 static": ready(calibrate(model, [torch.from_numpy(window) for window in calibration])),
        "int8 dynamic": ready(int8_weights(graph), DYNAMIC_QUANTIZATION_GROUP_SIZE=str(GROUP)),
    }


def milliseconds(of: dict[str, Infer], logmel: Array, repeats: int) -> dict[str, float]:
    """Median processor time of one window, the variants in turns."""
    taken: dict[str, list[float]] = {name: [] for name in of}
    for turn in range(repeats + 1):
        for name, infer in of.items():
            start = time.process_time()
            infer(logmel)
            if turn:
                taken[name].append(time.process_time() - start)
    return {name: 1e3 * statistics.median(values) for name, values in taken.items()}


def presence_maps(model: HTSAT, infer: Infer, inputs: dict[str, Array], durations: dict[str, float]) -> Any:
    """Recording -> presence map."""
    step = model.config.token_seconds
    return {
        name: PresenceMap(
            (1 / (1 + np.exp(-infer(logmel)[0])))[: int(np.ceil(durations[name] / step - 1e-6))],
            model.labels,
            step,
            durations[name],
        )
        for name, logmel in inputs.items()
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("folder", type=Path, help="as `htsat-sed soundscapes` makes it")
    arguments.add_argument("--calibration", type=int, default=60, help="recordings to calibrate on")
    arguments.add_argument("--repeats", type=int, default=15)
    arguments.add_argument("--checkpoint", default=None)
    given = arguments.parse_args()
    torch.set_num_threads(1)

    model = load_checkpoint(resolve_checkpoint(given.checkpoint))
    reference, durations = (
        read_events(given.folder / "reference.tsv"),
        read_durations(given.folder / "durations.tsv"),
    )
    names = sorted(durations)
    inputs = {name: read(model, given.folder / "audio" / name) for name in names}
    calibration, tested = names[: given.calibration], names[given.calibration :]
    home = variants(model, [inputs[name] for name in calibration])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        full = HTSAT(HTSATConfig()).eval()
    noise = [np.random.default_rng(i).normal(size=(1, FRAMES, 64)).astype(np.float32) for i in range(8)]
    speed = milliseconds(home, inputs[tested[0]], given.repeats)
    full_speed = milliseconds(variants(full, noise), noise[0], given.repeats)

    rules = default_post_processing(model.post_processing)
    maps = {
        variant: presence_maps(model, infer, {name: inputs[name] for name in tested}, durations)
        for variant, infer in home.items()
    }
    print(f"{len(tested)} recordings, calibrated on {len(calibration)} others; {given.repeats} turns")
    for variant, of_variant in maps.items():
        differences = [np.abs(of_variant[n].scores - maps["float32"][n].scores) for n in tested]
        together = np.concatenate(differences)
        found = evaluate_strong(
            {name: reference.get(name, []) for name in tested},
            maps=of_variant,
            settings=Settings(bootstrap=1000),
            post_processing=rules,
        )
        print(
            f"{variant:13s} home {speed[variant]:.1f} ms ({speed['float32'] / speed[variant]:.2f} x), "
            f"full size {full_speed[variant]:.1f} ms "
            f"({full_speed['float32'] / full_speed[variant]:.2f} x); "
            f"deviation {together.mean():.4f} on average, {together.max():.3f} at most"
        )
        for metric in found.metrics:
            for name, score in metric.headline.items():
                if "f1" in name.lower() and score.value is not None and score.low is not None:
                    print(
                        f"    {metric.name} {name}: {score.value:.3f} ({score.low:.3f} to {score.high:.3f})"
                    )


if __name__ == "__main__":
    try:
        main()
    except HtsatSedError as error:
        raise SystemExit(f"error: {error}") from error
