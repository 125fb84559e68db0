"""How fast the model runs, beside what this machine can do.

Prints, from one run: the machine's float32 matmul rate, the floating-point operations of a window, the
time of front end and backbone, the share of the matmul rate that the backbone reaches and, where
`transformers` is installed, the time of its `ClapAudioModel` of the same size. Everything is timed in
turns, so that a change of the machine's speed meets all alike; medians over the turns.

    python bench/model.py [--batch-size 8] [--repeats 15] [--threads 2]
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from htsat_sed.model.htsat import HTSAT, IMAGE_SIDE, PATCH, TOKENS, HTSATConfig

MATMUL_SIDE = 2048


def backbone_flops(config: HTSATConfig) -> int:
    """Floating-point operations of the backbone for one window: two for each multiply-add.

    Counts linear layers, the patch convolution and both products of attention; not LayerNorm, softmax,
    GELU or additions.
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


def medians(turns: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each function, timed in turns after one warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for turn in range(repeats + 1):
        for name, function in turns.items():
            start = time.perf_counter()
            with torch.inference_mode():
                function()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


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
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)
    batch = given.batch_size

    config = HTSATConfig()
    model = HTSAT(config).eval()
    waveforms = 0.1 * torch.randn(batch, config.window_samples)
    logmel = model.frontend(waveforms)
    image = torch.randn(batch, 1, IMAGE_SIDE, IMAGE_SIDE)
    square = torch.randn(MATMUL_SIDE, MATMUL_SIDE)
    turns: dict[str, Callable[[], object]] = {
        "matmul": lambda: square @ square,
        "front end": lambda: model.frontend(waveforms),
        "backbone": lambda: model.backbone(image),
        "whole model": lambda: model(waveforms),
    }
    if clap := clap_audio_model(config):
        turns["ClapAudioModel"] = lambda: clap(logmel)
    found = medians(turns, given.repeats)

    rate = 2 * MATMUL_SIDE**3 / found["matmul"]
    flops = backbone_flops(config)
    share = flops * batch / found["backbone"] / rate
    parameters = sum(p.numel() for p in model.parameters())
    print(f"machine         {processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"matmul          {rate / 1e9:.0f} GFLOP/s (float32, {MATMUL_SIDE} x {MATMUL_SIDE})")
    print(f"model           {parameters / 1e6:.1f} M parameters, {TOKENS} tokens x {config.classes} classes")
    print(f"backbone        {flops / 1e9:.2f} GFLOP a window")
    print(f"batch           {batch} windows of {config.window_seconds:g} s, medians of {given.repeats} turns")
    for name in list(turns)[1:]:
        each = found[name] / batch
        print(f"{name:15s} {each * 1e3:.1f} ms a window ({config.window_seconds / each:.0f} x real time)")
    print(f"backbone share  {share:.1%} of the matmul rate")


if __name__ == "__main__":
    main()
