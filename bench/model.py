"""How fast the model runs, beside what this machine can do.

Prints, from one run: the machine's float32 matmul rate in torch itself and in oneDNN, of which the higher
one counts (torch's is half of the other on some processors), the floating-point operations of a window, the
time of the front end and of what follows it (backbone and head, "core") in torch, OpenVINO and ONNX Runtime
as far as they are installed, the share of the matmul rate that each reaches, how far its scores are from
torch's and, where `transformers` is installed, the time of its `ClapAudioModel` of the same size. OpenVINO
also computes in bfloat16, where the processor does, and the graph that its own converter makes of the torch
model ("converted"), which shows what the graph drawn by hand gains.
Everything is timed in turns, each between two rounds of the matmul, with which it is compared: a machine's
speed changes from second to second. Medians over the turns.

With --threads 1 processor time is taken rather than time of day: other programs disturb it less.

    python bench/model.py [--batch-size 8] [--repeats 15] [--threads 2] [--checkpoint NAME]

Without --checkpoint the model has full size and random weights.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils import mkldnn

from htsat_sed import load_checkpoint
from htsat_sed.model.catalogue import resolve_checkpoint
from htsat_sed.model.htsat import FRAMES, HTSAT, IMAGE_SIDE, PATCH, TOKENS, HTSATConfig, stretch
from htsat_sed.model.runtime import Execution, Inference, Precision, Runtime
from htsat_sed.model.torch_core import Core, CoreModule, has_bfloat16

MATMUL_SIDE = 2048
MATMULS = 4  # of a round, which should not be much shorter than what it is compared with
ROUND_FLOPS = MATMULS * 2 * MATMUL_SIDE**3
Clock = Callable[[], float]


def core_flops(config: HTSATConfig) -> int:
    """Floating-point operations of the core for one window: two for each multiply-add.

    Counts linear layers, both convolutions and both products of attention; not LayerNorm, softmax, GELU or
    additions.
    """
    side = IMAGE_SIDE // PATCH
    multiply_adds = side**2 * config.embed_dim * PATCH**2
    for stage, depth in enumerate(config.depths):
        tokens, dim = (side // 2**stage) ** 2, config.embed_dim * 2**stage
        linear = tokens * dim * dim * (4 + 2 * config.mlp_ratio)
        attention = 2 * tokens * config.attention_window**2 * dim
        multiply_adds += depth * int(linear + attention)
        if stage < len(config.depths) - 1:
            multiply_adds += tokens // 4 * 4 * dim * 2 * dim
    multiply_adds += TOKENS * 6 * 8 * config.embed_dim * config.classes
    return 2 * multiply_adds


def clap_audio_model(config: HTSATConfig) -> Callable[[Tensor], object] | None:
    """The same backbone as `transformers` computes it, from a log-mel spectrogram; random weights."""
    if importlib.util.find_spec("transformers") is None:
        return None
    from transformers import ClapAudioConfig, ClapAudioModel

    model = ClapAudioModel(
        ClapAudioConfig(
            depths=list(config.depths),
            num_attention_heads=list(config.heads),
            patch_embeds_hidden_size=config.embed_dim,
            hidden_size=config.embed_dim * 8,
            enable_fusion=False,
        )
    ).eval()
    return lambda logmel: model(input_features=logmel[:, None], is_longer=None)


def cores(model: HTSAT, batch_size: int) -> dict[str, Callable[[], Core]]:
    """What makes the core in every runtime that is installed, and in every precision that the CPU has."""
    cpu = torch.device("cpu")

    def made(runtime: Runtime, precision: Precision = "float32") -> Core:
        return Inference(
            model, cpu, Execution(runtime=runtime, precision=precision), batch_size=batch_size
        )._core

    found: dict[str, Callable[[], Core]] = {"torch": lambda: made("torch")}
    if importlib.util.find_spec("openvino") is not None:
        from htsat_sed.model.openvino_core import openvino_core

        found["openvino"] = lambda: made("openvino")
        found["converted"] = lambda: openvino_core(converted(model), batch_size)
        if has_bfloat16():
            found["openvino bf16"] = lambda: made("openvino", "bfloat16")
            found["converted bf16"] = lambda: openvino_core(
                converted(model), batch_size, precision="bfloat16"
            )
    if importlib.util.find_spec("onnxruntime") is not None:
        found["onnxruntime"] = lambda: made("onnx")
    return found


def converted(model: HTSAT) -> object:
    """The graph that OpenVINO's converter makes of the torch module, for one window."""
    from htsat_sed.model.openvino_import import openvino

    window = torch.zeros(1, FRAMES, model.config.mel_bands)
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of torch's tracer
        graph = openvino.convert_model(CoreModule(model), example_input=window)
    graph.reshape(list(window.shape))
    return graph


def matmuls() -> dict[str, Callable[[], object]]:
    """A float32 matmul by each library."""
    square = torch.randn(MATMUL_SIDE, MATMUL_SIDE)
    by_library: dict[str, Callable[[], object]] = {"torch": lambda: square @ square}
    if torch.backends.mkldnn.is_available():
        layer = mkldnn.to_mkldnn(torch.nn.Linear(MATMUL_SIDE, MATMUL_SIDE).eval())
        rows = square.to_mkldnn()
        by_library["oneDNN"] = lambda: layer(rows)
    return by_library


def seconds(function: Callable[[], object], clock: Clock, calls: int = 1) -> float:
    """How long one call, or several, take."""
    start = clock()
    with torch.inference_mode():
        for _ in range(calls):
            function()
    return clock() - start


def fastest(by_library: dict[str, Callable[[], object]], clock: Clock) -> tuple[str, dict[str, float]]:
    """The library with the highest rate, and the rates of all, FLOP/s."""
    rates = {
        library: ROUND_FLOPS / statistics.median(seconds(matmul, clock, MATMULS) for _ in range(5))
        for library, matmul in by_library.items()
    }
    return max(rates, key=lambda library: rates[library]), rates


def in_turns(
    functions: dict[str, Callable[[], object]], matmul: Callable[[], object], repeats: int, clock: Clock
) -> dict[str, list[tuple[float, float]]]:
    """Seconds of each function and the mean of the rounds of matmuls around it, after one warm-up."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in functions}
    for turn in range(repeats + 1):
        before = seconds(matmul, clock, MATMULS)
        for name, function in functions.items():
            own = seconds(function, clock)
            seconds(matmul, clock)  # ONNX Runtime's threads are still looking for work, and in its way
            after = seconds(matmul, clock, MATMULS)
            if turn:
                found[name].append((own, (before + after) / 2))
            before = after
    return found


def processor() -> str:
    """The processor's name, as Linux tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.processor()
    names = [line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--batch-size", type=int, default=8)
    arguments.add_argument("--repeats", type=int, default=15)
    arguments.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments.add_argument("--checkpoint", default=None)
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    batch = given.batch_size

    model = HTSAT(HTSATConfig())
    if given.checkpoint is not None:
        model = load_checkpoint(resolve_checkpoint(given.checkpoint))
    model.eval()
    config = model.config
    waveforms = 0.1 * torch.randn(batch, config.window_samples)
    logmel = model.frontend(waveforms)
    normalised = stretch(model.normalise(logmel)).detach()
    of_runtimes, making = {}, {}
    for name, make in cores(model, batch).items():
        start = time.process_time()
        of_runtimes[name] = make()
        making[name] = time.process_time() - start
    with torch.inference_mode():
        scores = {name: core(normalised).sigmoid() for name, core in of_runtimes.items()}
    functions: dict[str, Callable[[], object]] = {"front end": lambda: model.frontend(waveforms)}
    for name, core in of_runtimes.items():
        functions[f"core, {name}"] = lambda core=core: core(normalised)  # type: ignore[misc]
    if clap := clap_audio_model(config):
        functions["ClapAudioModel"] = lambda: clap(logmel)
    clock = time.process_time if given.threads == 1 else time.perf_counter
    by_library = matmuls()
    library, rates = fastest(by_library, clock)
    found = in_turns(functions, by_library[library], given.repeats, clock)

    rates[library] = ROUND_FLOPS / statistics.median(
        matmul for turns in found.values() for _, matmul in turns
    )
    flops = core_flops(config)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"machine           {processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    every_rate = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in rates.items())
    print(f"matmul            {every_rate} GFLOP/s (float32, {MATMUL_SIDE} x {MATMUL_SIDE})")
    print(
        f"model             {parameters / 1e6:.1f} M parameters, {TOKENS} tokens x {config.classes} classes"
    )
    print(f"core              {flops / 1e9:.2f} GFLOP a window")
    print(f"batch             {batch} windows of {config.window_seconds:g} s, {given.repeats} turns")
    for name, turns in found.items():
        each = statistics.median(own for own, _ in turns) / batch
        line = f"{name:20s} {each * 1e3:.1f} ms a window ({config.window_seconds / each:.0f} x real time)"
        if (runtime := name.removeprefix("core, ")) in scores:
            share = statistics.median(flops * batch / own / (ROUND_FLOPS / matmul) for own, matmul in turns)
            error = (scores[runtime] - scores["torch"]).abs().max()
            line += f", {share:.1%} of {library}'s matmul rate, scores within {error:.0e} of torch"
            line += f", made in {making[runtime]:.1f} s"
        print(line)


if __name__ == "__main__":
    main()
