"""The paper's claims about size and time, measured: HTS-AT here, the same backbone in transformers, and AST.

Prints parameters, milliseconds a window of inference and of a training step (forward, backward, AdamW), and
the peak resident memory of a process that does nothing else, with ratios to HTS-AT. Each model runs in
processes of its own, in turns, so that a machine that gets slower does so for all. Weights are random and
full-size; windows are of 10 s. HTS-AT takes waveforms; the others take spectrograms that are made beforehand.
Published, for comparison (HTS-AT, ICASSP 2022): 35 % of AST's parameters and 15 % of its training time.

    pip install transformers
    python bench/claims.py [--batch-size 4] [--repeats 3] [--threads 1]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

CLASSES = 527
MODELS = ("HTS-AT", "ClapAudioModel", "AST")
Made = tuple[nn.Module, Callable[[int], Tensor], Callable[[nn.Module, Tensor], Tensor]]


def htsat() -> Made:
    """This package's model, waveforms, and its clip logits."""
    from htsat_sed.model.htsat import HTSAT, HTSATConfig

    model = HTSAT(HTSATConfig(classes=CLASSES))
    samples = model.config.window_samples
    return model, lambda n: 0.1 * torch.randn(n, samples), lambda m, x: m(x).clip_logits


def clap() -> Made:
    """The backbone of the same size as transformers computes it, with a linear head."""
    from transformers import ClapAudioConfig, ClapAudioModel

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            config = ClapAudioConfig(
                depths=[2, 2, 6, 2],
                num_attention_heads=[4, 8, 16, 32],
                patch_embeds_hidden_size=96,
                hidden_size=768,
                enable_fusion=False,
            )
            self.backbone, self.head = ClapAudioModel(config), nn.Linear(768, CLASSES)

        def forward(self, logmel: Tensor) -> Tensor:
            pooled = self.backbone(input_features=logmel, is_longer=None).pooler_output
            logits: Tensor = self.head(pooled)
            return logits

    return Classifier(), lambda n: torch.randn(n, 1, 1001, 64), lambda m, x: m(x)


def ast() -> Made:
    """The Audio Spectrogram Transformer (Gong et al., 2021): 1024 frames of 128 bands."""
    from transformers import ASTConfig, ASTForAudioClassification

    model = ASTForAudioClassification(ASTConfig(num_labels=CLASSES))
    return model, lambda n: torch.randn(n, 1024, 128), lambda m, x: m(x).logits


def measure(name: str, work: str, batch_size: int) -> dict[str, float]:
    """Milliseconds a window after one warm-up, parameters, and the peak memory of this process."""
    model, windows, logits_of = {"HTS-AT": htsat, "ClapAudioModel": clap, "AST": ast}[name]()
    batch, targets = windows(batch_size), torch.zeros(batch_size, CLASSES)
    targets[:, 0] = 1.0
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def train() -> None:
        optimiser.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(logits_of(model, batch), targets).backward()
        optimiser.step()

    def infer() -> None:
        with torch.inference_mode():
            logits_of(model, batch)

    step = train if work == "train" else infer
    model.train(work == "train")
    step()
    # Processor time with one thread: other programs disturb it less.
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    step()
    seconds = clock() - start
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "ms": 1000 * seconds / batch_size,
        "parameters": float(sum(p.numel() for p in model.parameters())),
        "mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20,
    }


def main() -> None:
    """Measure each model in turns, and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--batch-size", type=int, default=4)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--one", nargs=2, default=None, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.one is not None:
        torch.set_num_threads(given.threads)
        print(json.dumps(measure(*given.one, given.batch_size)))
        return
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(given.repeats):
        for work in ("infer", "train"):
            for name in MODELS:
                command = [sys.executable, __file__, "--one", name, work]
                command += ["--batch-size", str(given.batch_size), "--threads", str(given.threads)]
                printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found.setdefault((name, work), []).append(json.loads(printed.splitlines()[-1]))

    def median(name: str, work: str, figure: str) -> float:
        return statistics.median(each[figure] for each in found[name, work])

    print(f"{'':16s}{'parameters':>14s}{'inference':>18s}{'training step':>20s}{'memory, both':>22s}")
    for name in MODELS:
        cells = []
        for work, figure, unit, scale in (
            ("infer", "parameters", "M", 1e-6),
            ("infer", "ms", "ms", 1.0),
            ("train", "ms", "ms", 1.0),
        ):
            value, own = median(name, work, figure), median(MODELS[0], work, figure)
            cells.append(f"{scale * value:.1f} {unit} ({value / own:.2f})")
        cells.append(f"{median(name, 'infer', 'mib'):.0f}, {median(name, 'train', 'mib'):.0f} MiB")
        print(f"{name:16s}" + "".join(f"{cell:>20s}" for cell in cells))
    shares = [median(MODELS[0], work, "ms") / median("AST", work, "ms") for work in ("infer", "train")]
    size = median(MODELS[0], "infer", "parameters") / median("AST", "infer", "parameters")
    print(f"HTS-AT by AST: {size:.0%} of the parameters (published 35 %), {shares[1]:.0%} of the time of a")
    print(f"training step (published 15 % of the whole training), {shares[0]:.0%} of that of inference")


if __name__ == "__main__":
    main()
