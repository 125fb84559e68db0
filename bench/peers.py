"""How fast the same recordings pass through htsat-sed and through peers, from files to scores.

Writes recordings of noise (FLAC, 44.1 kHz, stereo). Each contender turns all of them into what it makes of
recordings, in turns, so that a change of the machine's speed meets all alike; medians over the turns. Beside
the time that passed stands the processors' time, which other work on the machine changes less. Weights are
random but for htsat-sed's bundled checkpoint: speed alone is compared.

- htsat-sed: presence maps, 32 tokens x classes a window of 10 s; the full-size model and the bundled one, in
  torch and, where installed, in OpenVINO.
- panns_inference (where installed): framewise scores by `SoundEventDetection` with Cnn14_DecisionLevelMax, a
  recording at a time, loaded by librosa, as in its example. The files that it would download are made here.
- transformers (where installed): embeddings by `ClapFeatureExtractor` and `ClapAudioModel`, the backbone of
  htsat-sed's full-size model, in windows of 10 s at 48 kHz, loaded by librosa; it has no scores a token.

    python bench/peers.py [--recordings 6] [--seconds 60] [--repeats 3] [--threads 2] [--batch-size 8]
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from unittest import mock

import numpy as np
import soundfile
import torch
from model import processor

from htsat_sed import Detector, load_checkpoint
from htsat_sed.labels import audioset_labels
from htsat_sed.model.catalogue import resolve_checkpoint
from htsat_sed.model.htsat import HTSAT, HTSATConfig
from htsat_sed.model.runtime import Execution, Runtime

RATE = 44_100
CLAP_RATE, CLAP_SECONDS = 48_000, 10

Contender = Callable[[Sequence[Path]], object]


def write_recordings(folder: Path, count: int, seconds: int) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [folder / f"{number}.flac" for number in range(count)]
    for path in paths:
        soundfile.write(path, 0.1 * rng.standard_normal((seconds * RATE, 2)), RATE, subtype="PCM_16")
    return paths


def htsat_sed(model: HTSAT, runtime: Runtime, batch_size: int) -> Contender:
    detector = Detector(model, device="cpu", batch_size=batch_size, execution=Execution(runtime=runtime))
    return lambda paths: list(detector.presence_maps(paths))


def panns(folder: Path) -> Contender:
    """`SoundEventDetection` as its authors use it, with `folder` for the home it keeps its files in."""
    data = folder / "panns_data"
    data.mkdir()
    rows = "".join(f'{number},x,"{label}"\n' for number, label in enumerate(audioset_labels()))
    (data / "class_labels_indices.csv").write_text(f"index,mid,display_name\n{rows}")
    import librosa

    with mock.patch.dict(os.environ, HOME=str(folder)):
        from panns_inference import SoundEventDetection
        from panns_inference.models import Cnn14_DecisionLevelMax

    model = Cnn14_DecisionLevelMax(
        sample_rate=32_000, window_size=1024, hop_size=320, mel_bins=64, fmin=50, fmax=14_000, classes_num=527
    )
    weights = data / "Cnn14_DecisionLevelMax.pth"
    torch.save({"model": model.state_dict()}, weights)
    with contextlib.redirect_stdout(io.StringIO()):
        detection = SoundEventDetection(model=model, checkpoint_path=str(weights), device="cpu")

    def run(paths: Sequence[Path]) -> None:
        for path in paths:
            samples, _ = librosa.load(path, sr=32_000, mono=True)
            detection.inference(samples[None])

    return run


def clap(batch_size: int) -> Contender:
    import librosa
    from transformers import ClapAudioConfig, ClapAudioModel, ClapFeatureExtractor

    extractor = ClapFeatureExtractor(sampling_rate=CLAP_RATE, truncation="rand_trunc", padding="repeatpad")
    config = HTSATConfig()
    model = ClapAudioModel(
        ClapAudioConfig(
            depths=list(config.depths),
            num_attention_heads=list(config.heads),
            patch_embeds_hidden_size=config.embed_dim,
            hidden_size=config.embed_dim * 8,
            enable_fusion=False,
        )
    ).eval()

    @torch.inference_mode()
    def run(paths: Sequence[Path]) -> None:
        for path in paths:
            samples, _ = librosa.load(path, sr=CLAP_RATE, mono=True)
            step = CLAP_RATE * CLAP_SECONDS
            windows = [samples[start : start + step] for start in range(0, len(samples), step)]
            for start in range(0, len(windows), batch_size):
                batch = windows[start : start + batch_size]
                model(**extractor(batch, sampling_rate=CLAP_RATE, return_tensors="pt"))

    return run


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--recordings", type=int, default=6)
    arguments.add_argument("--seconds", type=int, default=60)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments.add_argument("--batch-size", type=int, default=8)
    given = arguments.parse_args()
    torch.set_num_threads(given.threads)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_recordings(folder, given.recordings, given.seconds)
        full, bundled = HTSAT(HTSATConfig()).eval(), load_checkpoint(resolve_checkpoint())
        contenders: dict[str, Contender] = {
            "htsat-sed, torch": htsat_sed(full, "torch", given.batch_size),
            "bundled, torch": htsat_sed(bundled, "torch", given.batch_size),
        }
        if importlib.util.find_spec("openvino"):
            contenders["htsat-sed, OpenVINO"] = htsat_sed(full, "openvino", given.batch_size)
            contenders["bundled, OpenVINO"] = htsat_sed(bundled, "openvino", given.batch_size)
        if importlib.util.find_spec("panns_inference"):
            contenders["panns_inference"] = panns(folder)
        if importlib.util.find_spec("transformers"):
            contenders["ClapAudioModel"] = clap(given.batch_size)

        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        processor_seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for turn in range(given.repeats + 1):
            for name, run in contenders.items():
                start, processor_start = time.perf_counter(), time.process_time()
                run(paths[:1] if turn == 0 else paths)  # one to warm up
                if turn:
                    seconds[name].append(time.perf_counter() - start)
                    processor_seconds[name].append(time.process_time() - processor_start)

    total = given.recordings * given.seconds
    print(f"machine     {processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"recordings  {given.recordings} of {given.seconds} s, FLAC, {RATE} Hz, stereo")
    print(f"turns       {given.repeats}; medians; s for an hour of sound\n")
    print(f"{'':20s}{'x real time':>12s}{'passed':>10s}{'processor':>12s}")
    for name in contenders:
        passed, busy = (statistics.median(of[name]) / total for of in (seconds, processor_seconds))
        print(f"{name:20s}{1 / passed:12.1f}{3600 * passed:10.0f}{3600 * busy:12.0f}")


if __name__ == "__main__":
    main()
