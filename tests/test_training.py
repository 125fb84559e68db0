"""Recipes, training and its parts, on clips made here and a tiny model."""

import csv
import itertools
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from rule_made import official_state

from htsat_sed.cli import main
from htsat_sed.errors import AnnotationError, AudioError, CheckpointError
from htsat_sed.labels import audioset_codes
from htsat_sed.model.checkpoint import load_checkpoint, read_info, save_checkpoint
from htsat_sed.model.htsat import HTSAT, HTSATConfig
from htsat_sed.training import fit as fitting
from htsat_sed.training.augmentation import masked, mixed
from htsat_sed.training.batches import Batch, Batches, Deal, plan
from htsat_sed.training.data import read_clips
from htsat_sed.training.examples import ClipSeries, Window
from htsat_sed.training.fit import Machine, fit
from htsat_sed.training.module import Training, paper_factor
from htsat_sed.training.recipe import AugmentationRecipe, DataRecipe, ModelRecipe, Recipe, read_recipe
from htsat_sed.training.start import from_timm, start_model

RATE = 32_000
RECIPES = Path(__file__).parents[1] / "recipes"
TINY = ModelRecipe(embed_dim=16, depths=(1, 1, 1, 1), heads=(1, 2, 2, 4), drop_path=0.1)
MIXED = Recipe(
    data=(DataRecipe(kind="clips", folds=(1, 2, 3), mix=True),),
    epochs=2,
    epoch_examples=4,
    batch_size=2,
    warm_up=0.25,
    model=TINY,
)
CPU = Machine(device="cpu", workers=0)


def write(path: Path, seconds: float, *, frequency: float = 440.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    time = np.arange(int(seconds * RATE)) / RATE
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * frequency * time), RATE)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of every kind, with the same recordings."""
    folder = tmp_path_factory.mktemp("data")
    for i in range(8):
        write(folder / "audio" / f"{i}.wav", 1.0, frequency=300.0 * (1 + i % 2))
    label = ["Low", "High"]
    (folder / "clips.tsv").write_text(
        "filename\tlabel\tfold\tonset\toffset\n"
        + "".join(f"{i}.wav\t{label[i % 2]}\t{i // 2 + 1}\t0.1\t0.9\n" for i in range(8))
    )
    (folder / "weak.tsv").write_text(
        "filename\tevent_labels\n0.wav\tLow\n1.wav\tHigh\n2.wav\tHigh,Low\n3.wav\t\n"
    )
    (folder / "strong.tsv").write_text(
        "filename\tonset\toffset\tevent_label\n4.wav\t0.0\t0.5\tLow\n5.wav\t0.5\t1.0\tHigh\n6.wav\t\t\t\n"
    )
    (folder / "meta").mkdir()
    (folder / "meta" / "esc50.csv").write_text(
        "filename,fold,target,category\n"
        + "".join(f"{i}.wav,{i % 5 + 1},0,{label[i % 2]}\n" for i in range(8))
    )
    codes = list(audioset_codes())
    (folder / "segments.csv").write_text(
        "# Segments csv created Sun Mar  5 10:54:31 2017\n# num_ytids=3\n"
        f'0, 30.000, 40.000, "{codes[0]},{codes[3]}"\n1, 0.000, 10.000, "{codes[1]}"\n'
        f'gone, 0.000, 10.000, "{codes[2]}"\n'
    )
    return folder


def read(part: DataRecipe, folder: Path) -> list[tuple[str, list[str], int | None]]:
    clips = read_clips(part, folder, fold_count=4)
    return [(clip.path.name, sorted(clip.labels), clip.fold) for clip in clips]


def test_tables_of_every_kind(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    weak = read(DataRecipe(kind="weak", table="weak.tsv"), data)
    assert weak == [
        ("0.wav", ["Low"], None),
        ("1.wav", ["High"], None),
        ("2.wav", ["High", "Low"], None),
        ("3.wav", [], None),
    ]
    strong = DataRecipe(kind="strong", table="strong.tsv")
    assert read(strong, data) == [("4.wav", ["Low"], 1), ("5.wav", ["High"], 2), ("6.wav", [], 3)]
    assert read(replace(strong, folds=(2,)), data) == [("5.wav", ["High"], 2)]
    assert read(DataRecipe(kind="clips", folds=(4,)), data) == [("6.wav", ["Low"], 4), ("7.wav", ["High"], 4)]
    assert read(DataRecipe(kind="esc50", folds=(5,)), data) == [("4.wav", ["Low"], 5)]
    caplog.clear()
    assert read(DataRecipe(kind="audioset", table="segments.csv"), data) == [
        ("0.wav", ["Child speech, kid speaking", "Speech"], None),
        ("1.wav", ["Male speech, man speaking"], None),
    ]
    assert "1 of its 3 recordings missing: gone.wav" in caplog.text


def test_audioset_files_may_tell_their_start(tmp_path: Path) -> None:
    for name in ("Yab-c_30.wav", "d_30000.wav"):
        write(tmp_path / "audio" / name, 0.1)
    (tmp_path / "s.csv").write_text('ab-c, 30.000, 40.000, "/m/09x0r"\nd, 30.000, 40.000, "/m/09x0r"\n')
    found = read(DataRecipe(kind="audioset", table="s.csv"), tmp_path)
    assert [name for name, _, _ in found] == ["Yab-c_30.wav", "d_30000.wav"]


def test_speech_commands(tmp_path: Path) -> None:
    for name in ("yes/a.wav", "yes/b.wav", "no/a.wav", "no/c.wav", "_background_noise_/hum.wav"):
        write(tmp_path / name, 0.1)
    (tmp_path / "validation_list.txt").write_text("yes/b.wav\n")
    (tmp_path / "testing_list.txt").write_text("no/c.wav\n")
    part = DataRecipe(kind="speech-commands", audio=".")
    assert sorted(read(part, tmp_path)) == [("a.wav", ["no"], None), ("a.wav", ["yes"], None)]
    listed = replace(part, table="validation_list.txt")
    assert read(listed, tmp_path) == [("b.wav", ["yes"], None)]


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        ("clips", "filename\tlabel\n", "lacks fold, onset, offset"),
        ("clips", "filename\tlabel\tfold\tonset\toffset\na.wav\tDog\tx\t0\t1\n", "line 2: wanted numbers"),
        ("clips", "filename\tlabel\tfold\tonset\toffset\na.wav\tDog\t1\t2\t1\n", "line 2: wanted 0 <= onset"),
        ("esc50", "filename,fold,category\na.wav,,dog\n", "line 2: wanted a number as fold"),
        ("audioset", "x, 0, 10, /m/none\n", "line 1: /m/none is none of AudioSet's codes"),
        ("audioset", "x, 0\n", "line 1: wanted video, start, end and codes"),
        ("weak", "filename\tevent_labels\nnone.wav\tDog\n", "none of its 1 recordings is below"),
    ],
)
def test_bad_tables(tmp_path: Path, kind: str, text: str, message: str) -> None:
    (tmp_path / "table").write_text(text)
    (tmp_path / "audio").mkdir()
    with pytest.raises(AnnotationError, match=message):
        read(DataRecipe(kind=kind, table="table"), tmp_path)  # type: ignore[arg-type]


WINDOW = Window(sample_rate=RATE, samples=64_000, tokens=32, labels=("High", "Low"))


def test_weak_clips_repeat_and_strong_ones_are_padded(data: Path) -> None:
    weak = read_clips(DataRecipe(kind="weak", table="weak.tsv"), data, fold_count=4)
    example = ClipSeries(weak, WINDOW, seed=0, random=False)[0]
    np.testing.assert_array_equal(example.waveform[:32_000], example.waveform[32_000:])
    assert example.clip.tolist() == [0.0, 1.0]
    assert example.events is None
    strong = read_clips(DataRecipe(kind="strong", table="strong.tsv"), data, fold_count=4)
    example = ClipSeries(strong, WINDOW, seed=0, random=False)[1]
    assert not example.waveform[32_000:].any()
    assert example.tokens[:, 0].tolist() == [0.0] * 8 + [1.0] * 8 + [0.0] * 16
    assert example.clip.tolist() == [1.0, 0.0]
    nothing = ClipSeries(strong, WINDOW, seed=0, random=False)[2]
    assert nothing.events == ()
    assert not nothing.clip.any()


def test_a_long_clip_gives_a_window_with_its_events(tmp_path: Path) -> None:
    write(tmp_path / "audio" / "long.wav", 6.0)
    (tmp_path / "s.tsv").write_text("filename\tonset\toffset\tevent_label\nlong.wav\t0\t6\tLow\n")
    clips = read_clips(DataRecipe(kind="strong", table="s.tsv"), tmp_path, fold_count=4)
    example = ClipSeries(clips, WINDOW, seed=0)[0]
    assert example.waveform.shape == (64_000,)
    np.testing.assert_allclose(example.tokens[:, 1], 1.0, atol=1e-6)


def test_time_shift_moves_sound_and_labels_together(tmp_path: Path) -> None:
    samples = np.zeros(64_000)
    samples[16_000:32_000] = 0.5
    (tmp_path / "audio").mkdir()
    soundfile.write(tmp_path / "audio" / "a.wav", samples, RATE)
    (tmp_path / "s.tsv").write_text("filename\tonset\toffset\tevent_label\na.wav\t0.5\t1.0\tLow\n")
    clips = read_clips(DataRecipe(kind="strong", table="s.tsv"), tmp_path, fold_count=4)
    series = ClipSeries(clips, WINDOW, seed=0, time_shift=2.0)
    places = set()
    for number in range(12):
        example = series[number]
        loud = example.waveform.reshape(32, 2000).max(axis=1) > 0.1
        np.testing.assert_array_equal(loud, example.tokens[:, 1] > 0.5)
        covered = np.zeros(32, bool)
        for event in example.events or ():
            covered[round(event.onset * 16) : round(event.offset * 16)] = True
        np.testing.assert_array_equal(covered, loud)
        places.add(loud.tobytes())
    assert len(places) > 6


def test_each_clip_comes_once_an_epoch_or_by_class(data: Path) -> None:
    clips = read_clips(DataRecipe(kind="clips"), data, fold_count=4)[:3]  # two Low, one High
    series = ClipSeries(clips, WINDOW, seed=1)
    firsts = [float(series[number].clip[0]) for number in range(30)]
    assert [sum(firsts[i : i + 3]) for i in range(0, 30, 3)] == [1.0] * 10
    balanced = ClipSeries(clips, WINDOW, seed=1, balanced=True)
    assert 6 <= sum(float(balanced[number].clip[0]) for number in range(30)) <= 24
    assert np.array_equal(series[17].waveform, ClipSeries(clips, WINDOW, seed=1)[17].waveform)


def test_a_broken_clip_makes_room_for_the_next(data: Path, tmp_path: Path) -> None:
    good = read_clips(DataRecipe(kind="weak", table="weak.tsv"), data, fold_count=4)[:1]
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    bad = replace(good[0], path=tmp_path / "bad.wav")
    example = ClipSeries([bad, *good], WINDOW, seed=0, random=False)[0]
    assert example.clip.tolist() == [0.0, 1.0]
    assert [Path(path).name for path, _ in example.broken] == ["bad.wav"]
    with pytest.raises(AudioError, match="like all of 1 clips tried"):
        ClipSeries([bad], WINDOW, seed=0)[0]


def test_shares_of_a_batch() -> None:
    assert np.bincount(plan([1.0, 3.0], 8)).tolist() == [2, 6]
    assert np.bincount(plan([0.1, 1.0, 1.0], 21)).tolist() == [1, 10, 10]
    with pytest.raises(ValueError, match="room for 2 parts, got 4"):
        plan([0.001, 1.0], 4)


class Numbers:
    """Examples that are their own number."""

    def __init__(self, offset: int) -> None:
        self.offset = offset

    def __getitem__(self, number: int) -> "fitting.Example":  # type: ignore[name-defined]
        from htsat_sed.training.examples import Example

        row = np.array([self.offset + number], np.float32)
        return Example(row, row, row[None], None)


def numbers_of(batches: list[Batch]) -> list[float]:
    return sorted(float(x) for batch in batches for x in batch.waveforms.flatten())


def test_processes_and_accumulation_share_the_same_examples() -> None:
    parts = [(Numbers(0), 1.0), (Numbers(1000), 3.0)]

    def deal(rank: int, world: int, accumulate: int, first: int = 0) -> list[Batch]:
        dealt = Deal(first=first, steps=3, accumulate=accumulate, rank=rank, world=world)
        return list(Batches(parts, size=8, deal=dealt))

    alone = deal(0, 1, 1)
    assert [batch.number for batch in alone] == [0, 1, 2]
    assert numbers_of(alone) == [*range(6), *range(1000, 1018)]
    assert numbers_of(deal(0, 2, 2) + deal(1, 2, 2)) == numbers_of(alone)
    assert numbers_of(deal(0, 1, 4)[:4]) == numbers_of(alone[:1])
    assert numbers_of(deal(0, 1, 1, first=2)) == numbers_of(alone[2:])
    with pytest.raises(ValueError, match="multiple of 3"):
        deal(0, 3, 1)


def test_spec_augment_masks_and_mixup_mixes_alike() -> None:
    torch.manual_seed(0)
    recipe = AugmentationRecipe(time_masks=1, time_mask=10, band_masks=1, band_mask=4)
    out = masked(torch.ones(50, 100, 64), recipe)
    frames, bands = (out == 0).all(dim=2).sum(dim=1), (out == 0).all(dim=1).sum(dim=1)
    assert frames.max() == 10
    assert bands.max() == 4
    assert frames.min() == bands.min() == 0
    x = torch.arange(6.0)
    one, other = mixed((x.view(6, 1), x.view(6, 1, 1)), alpha=0.5)
    torch.testing.assert_close(one.flatten(), other.flatten())
    assert not torch.equal(one.flatten(), x)
    assert one.min() >= 0.0
    assert one.max() <= 5.0


def test_published_schedule() -> None:
    """As HTS-AT's authors have it: by bisection of (10, 20, 30)."""
    epochs = (0, 1, 2, 3, 10, 11, 20, 21, 30, 31, 99)
    wanted = [0.02, 0.05, 0.1, 0.1, 0.1, 0.05, 0.05, 0.02, 0.02, 0.03, 0.03]
    assert [paper_factor(epoch) for epoch in epochs] == wanted


def module(recipe: Recipe) -> Training:
    model = HTSAT(HTSATConfig(classes=2, **vars(TINY)), ("High", "Low"))
    return Training(model, recipe, epoch_steps=10)


def test_one_cycle_rises_and_falls() -> None:
    training = module(replace(MIXED, epochs=10, warm_up=0.1))
    factors = [training._factor(step) for step in range(100)]
    assert factors[8] == pytest.approx(0.9)
    assert max(factors) == pytest.approx(1.0, abs=1e-3)
    assert all(a > b for a, b in itertools.pairwise(factors[10:]))
    assert factors[-1] == pytest.approx(0.0, abs=1e-9)


def test_averages_of_the_last_epochs_and_moving() -> None:
    training = module(replace(MIXED, epochs=10, average="epochs", average_epochs=4))
    weights = [training._weight(step) for step in range(1, 101)]
    assert {i + 1: w for i, w in enumerate(weights) if w} == pytest.approx(
        {**{step: 1.0 for step in range(10, 80, 10)}, 80: 1 / 2, 90: 1 / 3, 100: 1 / 4}
    )
    moving = module(replace(MIXED, average="ema", ema_decay=0.9))
    assert moving._weight(1) == pytest.approx(0.9)
    assert moving._weight(10_000) == pytest.approx(0.1)


def test_losses_of_weak_and_strong_labels_in_one_batch() -> None:
    training = module(MIXED)
    out = training.model.eval()(torch.randn(3, 320_000) / 10)
    clip = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    tokens = torch.rand(3, 32, 2)
    strong = torch.tensor([False, True, False])
    terms = training._losses(out, clip, tokens, strong)
    assert terms["token_loss"].item() == pytest.approx(
        F.binary_cross_entropy(out.presence_logits[1].sigmoid(), tokens[1]).item(), abs=1e-6
    )
    assert terms["clip_loss"].item() == pytest.approx(
        F.binary_cross_entropy(out.clip_logits.sigmoid(), clip).item(), abs=1e-6
    )
    assert "token_loss" not in training._losses(out, clip, tokens, torch.zeros(3, dtype=torch.bool))
    single = module(replace(MIXED, loss="cross-entropy"))._losses(out, clip, tokens, ~strong)["clip_loss"]
    by_hand = -(clip * out.clip_logits.log_softmax(dim=1)).sum(dim=1).mean()
    assert single.item() == pytest.approx(by_hand.item(), abs=1e-6)


def test_a_run_resumed_ends_with_the_weights_and_curve_of_one_left_alone(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(
        MIXED,
        data=(*MIXED.data, DataRecipe(kind="weak", table="weak.tsv")),
        validation=(DataRecipe(kind="strong", table="strong.tsv"),),
        augmentation=AugmentationRecipe(mixup=0.5, time_shift=1.0),
        optimiser="muon",
        keep="best",
    )
    alone = fit(recipe, data, run=tmp_path / "alone", machine=CPU)

    steps = Training.training_step

    def killed(self: Training, batch: Batch, i: int) -> torch.Tensor:
        if self.global_step == 3:
            raise KeyboardInterrupt
        return steps(self, batch, i)

    with monkeypatch.context() as patched:
        patched.setattr(Training, "training_step", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(recipe, data, run=tmp_path / "killed", machine=CPU)
    resumed = fit(recipe, data, run=tmp_path / "killed", machine=CPU)
    for name, array in alone.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], array, rtol=0, atol=0, msg=name)
    curves = []
    for run in ("alone", "killed"):
        with (tmp_path / run / "metrics.csv").open() as file:
            curves.append([{k: v for k, v in row.items() if v} for row in csv.DictReader(file)])
    assert curves[0] == curves[1]
    assert {"clip_loss", "token_loss", "validation", "mAP", "learning_rate"} <= {
        k for r in curves[0] for k in r
    }
    again = fit(recipe, data, run=tmp_path / "alone", machine=CPU)  # has ended: nothing to do
    assert torch.equal(again.tscam_conv.weight, alone.tscam_conv.weight)
    with pytest.raises(AnnotationError, match=r"another recipe \(seed differ\)"):
        fit(replace(recipe, seed=1), data, run=tmp_path / "alone", machine=CPU)


@pytest.mark.long
def test_sigkill_and_resume(data: Path, tmp_path: Path) -> None:
    """The whole command, killed at some moment after its state was first saved."""
    (tmp_path / "r.toml").write_text(
        "epochs = 12\nepoch_examples = 2\nbatch_size = 2\n[[data]]\nkind = 'clips'\nmix = true\n"
        "[model]\nembed_dim = 16\ndepths = [1, 1, 1, 1]\nheads = [1, 2, 2, 4]\n"
    )

    recipe = read_recipe(tmp_path / "r.toml")
    fit(recipe, data, run=tmp_path / "alone", machine=CPU, out=tmp_path / "alone.safetensors")
    train = "import sys; from htsat_sed.cli import main; sys.argv[0] = 'htsat-sed'; main()"
    options = ["--data", str(data), "-o", str(tmp_path / "killed.safetensors"), "--device", "cpu"]
    started = subprocess.Popen(
        [sys.executable, "-c", train, "train", str(tmp_path / "r.toml"), *options, "--workers", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (tmp_path / "killed" / "last.ckpt").exists() and started.poll() is None:
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(started.pid, signal.SIGKILL)
    started.wait()
    assert not (tmp_path / "killed.safetensors").exists()
    fit(recipe, data, run=tmp_path / "killed", machine=CPU, out=tmp_path / "killed.safetensors")
    one, other = (load_checkpoint(tmp_path / f"{name}.safetensors") for name in ("alone", "killed"))
    for name, array in one.state_dict().items():
        assert torch.equal(array, other.state_dict()[name]), name


@pytest.mark.long
def test_two_processes(data: Path, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(
        "epochs = 1\nepoch_examples = 4\nbatch_size = 4\n[[data]]\nkind = 'weak'\ntable = 'weak.tsv'\n"
        "[model]\nembed_dim = 16\ndepths = [1, 1, 1, 1]\nheads = [1, 2, 2, 4]\n"
    )
    script = tmp_path / "htsat-sed"  # Lightning starts the second process by the name of the first
    script.write_text("from htsat_sed.cli import main\nif __name__ == '__main__':\n    main()\n")
    out = tmp_path / "two.safetensors"
    options = ["train", str(tmp_path / "r.toml"), "--data", str(data), "-o", str(out), "--device", "cpu"]
    flags = ["--devices", "2", "--workers", "0", "--accumulate", "2"]
    done = subprocess.run([sys.executable, str(script), *options, *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_info(out).labels == ("High", "Low")


@pytest.mark.parametrize("name", ["audioset", "esc50", "speech-commands", "desed", "home", "home-all"])
def test_recipes_train(name: str, tmp_path: Path) -> None:
    """A few steps of every published recipe, on data in the form it wants, with a tiny model from scratch."""
    recipe = read_recipe(RECIPES / f"{name}.toml")
    make_data(name, tmp_path)
    small = replace(
        recipe,
        start="",
        epochs=2,
        epoch_examples=12,
        batch_size=12,
        average_epochs=1,
        model=TINY,
        soundscapes=replace(recipe.soundscapes, validation=6),
    )
    model = fit(small, tmp_path, run=tmp_path / "run", machine=CPU)
    assert model.provenance["steps"] == 2
    assert model.config.loss == ("clip_ce" if recipe.loss == "cross-entropy" else "clip_bce")
    assert bool(model.provenance["validation"]) == bool(recipe.validation)
    assert (model.post_processing is not None) == (name in ("desed", "home"))


def make_data(name: str, folder: Path) -> None:
    if name == "audioset":
        code = list(audioset_codes())
        for table, first in (("unbalanced_train", 0), ("balanced_train", 4), ("eval", 6)):
            rows = [f'v{i}, 0.000, 10.000, "{code[i % 3]}"\n' for i in range(first, first + 4)]
            (folder / f"{table}_segments.csv").write_text("".join(rows))
        for i in range(10):
            write(folder / "audio" / f"v{i}.wav", 0.5)
    elif name == "esc50":
        (folder / "meta").mkdir()
        rows = [f"{i}.wav,{i % 5 + 1},0,{'dog' if i < 5 else 'rain'}\n" for i in range(10)]
        (folder / "meta" / "esc50.csv").write_text("filename,fold,target,category\n" + "".join(rows))
        for i in range(10):
            write(folder / "audio" / f"{i}.wav", 0.5)
    elif name == "speech-commands":
        for i in range(8):
            write(folder / ("yes" if i % 2 else "no") / f"{i}.wav", 0.5)
        (folder / "validation_list.txt").write_text("yes/1.wav\nno/2.wav\n")
        (folder / "testing_list.txt").write_text("yes/3.wav\n")
    elif name == "desed":
        strong = "filename\tonset\toffset\tevent_label", "0.1\t0.4\t"
        for table, (header, times) in {
            "train/weak": ("filename\tevent_labels", ""),
            "train/synthetic21_train/soundscapes": strong,
            "validation/validation": strong,
        }.items():
            rows = [header, *(f"{i}.wav\t{times}{'Dog' if i % 2 else 'Cat'}" for i in range(6))]
            path = folder / "metadata" / f"{table}.tsv"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(rows) + "\n")
            for i in range(6):
                write(folder / "audio" / table / f"{i}.wav", 0.5)
    else:
        rows = [f"{i}.wav\t{'Low' if i % 2 else 'High'}\t{i // 2 + 1}\t0.1\t0.4\n" for i in range(8)]
        (folder / "clips.tsv").write_text("filename\tlabel\tfold\tonset\toffset\n" + "".join(rows))
        for i in range(8):
            write(folder / "audio" / f"{i}.wav", 0.5)
            write(folder / f"talk{i}.wav", 2.0)
        rows = [f"talk{i}.wav\t0.5\t1.5\tSpeech\n" for i in range(8)]
        (folder / "speech.tsv").write_text("filename\tonset\toffset\tevent_label\n" + "".join(rows))


def test_early_stop_and_best_epoch(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(
        MIXED, validation=(DataRecipe(kind="weak", table="weak.tsv"),), epochs=9, patience=2, keep="best"
    )
    metrics = iter([0.2, 0.6, 0.5, 0.4, 0.9])

    def validated(self: Training) -> None:
        self._validated.clear()
        self.metrics = {"mAP": next(metrics)}
        self.log("validation", self.metrics["mAP"])
        self.log("step_of_best", float(self.global_step))
        if self.metrics["mAP"] == 0.6:
            torch.save(self.averaged.tscam_conv.weight.clone(), tmp_path / "best.pt")

    monkeypatch.setattr(Training, "on_validation_epoch_end", validated)
    model = fit(recipe, data, run=tmp_path / "run", machine=CPU)
    assert model.provenance["steps"] == 8  # four epochs of two steps
    assert torch.equal(model.tscam_conv.weight, torch.load(tmp_path / "best.pt"))


def test_start_from_another_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    config = HTSATConfig(classes=3, **vars(TINY))
    old = HTSAT(config, ("a", "b", "c"))
    old.post_processing = {"threshold": 0.3}
    save_checkpoint(tmp_path / "old.safetensors", old)
    start = str(tmp_path / "old.safetensors")
    new = start_model(HTSATConfig(classes=2), ("c", "x"), start)
    assert new.config.embed_dim == 16
    assert torch.equal(new.backbone.norm.weight, old.backbone.norm.weight)
    assert new.tscam_conv.weight.shape[0] == 2
    assert "new are tscam_conv.weight, tscam_conv.bias" in caplog.text
    assert new.post_processing is None
    part = start_model(HTSATConfig(classes=2), ("c", "a"), start)
    assert torch.equal(part.tscam_conv.weight, old.tscam_conv.weight[[2, 0]])
    assert part.post_processing == {"threshold": 0.3}
    assert "new are none" in caplog.text
    with pytest.raises(CheckpointError):
        start_model(config, ("a", "b", "c"), str(tmp_path / "none.safetensors"))


def test_start_from_clap(tmp_path: Path) -> None:
    """The encoder of an HTS-AT that is part of another model, whose head is not ours."""
    state = official_state(HTSATConfig(classes=1, **vars(TINY)), seed=1)
    renamed = {key.replace("sed_model.", "module.audio_branch."): array for key, array in state.items()}
    torch.save({"state_dict": renamed}, tmp_path / "clap.pt")
    model = start_model(HTSATConfig(classes=2), ("a", "b"), str(tmp_path / "clap.pt"))
    assert model.config.embed_dim == 16
    assert torch.equal(model.backbone.norm.weight, renamed["module.audio_branch.norm.weight"])


def test_start_from_timm() -> None:
    """A Swin of timm's on our image gives our tokens: same order of merging, same blocks."""
    timm = pytest.importorskip("timm")
    sizes = {
        "img_size": 256,
        "window_size": 8,
        "embed_dim": 16,
        "depths": (2, 2, 2, 2),
        "num_heads": (1, 2, 2, 4),
    }
    swin = timm.models.swin_transformer.SwinTransformer(in_chans=3, num_classes=0, **sizes).eval()
    for parameter in swin.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    encoder = from_timm(swin.state_dict(), "swin")
    assert (encoder.embed_dim, encoder.depths, encoder.heads) == (16, (2, 2, 2, 2), (1, 2, 2, 4))
    model = HTSAT(HTSATConfig(classes=1, embed_dim=16, depths=(2, 2, 2, 2), heads=(1, 2, 2, 4))).eval()
    missing = model.load_state_dict(encoder.arrays, strict=False).missing_keys
    assert all(name.startswith(("bn0.", "tscam_conv.")) for name in missing)
    image = torch.randn(1, 1, 256, 256)
    with torch.no_grad():
        wanted = swin.forward_features(image.expand(-1, 3, -1, -1)).flatten(1, 2)
        torch.testing.assert_close(model.backbone(image), wanted, rtol=1e-4, atol=1e-4)


def test_bias_tables_of_another_window_are_stretched() -> None:
    from htsat_sed.training.start import _stretched

    rows = torch.arange(13.0).repeat_interleave(13)[:, None]  # rises along one axis alone
    table = _stretched(rows).view(15, 15)
    torch.testing.assert_close(table[0], torch.zeros(15), atol=0.3, rtol=0)
    assert table[-1].mean() == pytest.approx(12.0, abs=0.1)
    torch.testing.assert_close(table[:, :1].expand(-1, 15), table)


def test_command(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(
        "epochs = 1\nepoch_examples = 2\nbatch_size = 2\n[[data]]\nkind = 'clips'\nfolds = [1, 2]\nmix = true\n"
        "[model]\nembed_dim = 16\ndepths = [1, 1, 1, 1]\nheads = [1, 2, 2, 4]\n"
    )
    out = tmp_path / "tiny.safetensors"
    command = f"htsat-sed train {recipe} --data {data} -o {out} --float16 --device cpu --workers 0"
    monkeypatch.setattr(sys, "argv", command.split())
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    info = read_info(out)
    assert info.labels == ("High", "Low")
    assert info.dtype == "float16"
    assert info.provenance["data"] == [{"kind": "clips", "table": "", "folds": [1, 2], "clips": 4}]
    assert isinstance(load_checkpoint(out), HTSAT)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch = 3", "unknown value epoch; did you mean 'epochs'?"),
        ("[model]\nembed_dims = 3", "unknown value model.embed_dims; did you mean 'model.embed_dim'?"),
        ("[[data]]\nkind = 'weak'\ntabel = 'x'", "unknown value data.tabel; did you mean 'data.table'?"),
        ("[[data]]\nkind = 'week'", "wanted kind to be one of weak, strong"),
        ("[[data]]\nkind = 'weak'", "wanted a table for data of kind weak"),
        ("[data]\nkind = 'clips'", r"wanted \[\[data\]\], with two brackets"),
        ("[[data]]\nkind = 'clips'\nfolds = [5]", r"wanted folds among 1 to 4, got \(5,\)"),
        ("", r"wanted at least one \[\[data\]\] table"),
        ("epochs = 0\n[[data]]\nkind = 'clips'", "wanted epochs of at least 1, got 0"),
        ("loss = 'mse'\n[[data]]\nkind = 'clips'", "wanted loss to be one of bce, cross-entropy; got 'mse'"),
        ("keep = 'best'\n[[data]]\nkind = 'clips'", r"wanted \[\[validation\]\] data for patience"),
        ("epochs = ", "not a recipe: Invalid value"),
        ("[soundscapes]\nevents = [0.5]", "wanted events to be probabilities that sum to 1"),
        ("[soundscapes]\ngain_db = [1.0, 0.0]", "wanted gain_db to be a range"),
        ("[augmentation]\nmixup = -1.0", "wanted mixup of at least 0"),
    ],
)
def test_recipes_are_checked(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    with pytest.raises(AnnotationError, match=message):
        read_recipe(path)


def test_labels_must_be_the_recipes(data: Path, tmp_path: Path) -> None:
    with pytest.raises(AnnotationError, match="has a label 'High' that the recipe lacks"):
        fit(replace(MIXED, labels=("Low", "Hihg")), data, run=tmp_path, machine=CPU)
    single = replace(MIXED, data=(DataRecipe(kind="weak", table="weak.tsv"),), loss="cross-entropy")
    with pytest.raises(AnnotationError, match="exactly one label a clip"):
        fit(single, data, run=tmp_path, machine=CPU)
