"""Whole runs of training: every recipe, stopped and resumed, in several processes, by the command."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from clips_made import CPU, MIXED, TINY, write

from htsat_sed.cli import main
from htsat_sed.errors import AnnotationError, HtsatSedError
from htsat_sed.labels import audioset_codes
from htsat_sed.model.checkpoint import load_checkpoint, read_info
from htsat_sed.model.htsat import HTSAT, HTSATConfig
from htsat_sed.training.augmentation import masked
from htsat_sed.training.batches import Batch
from htsat_sed.training.fit import fit
from htsat_sed.training.module import Training
from htsat_sed.training.recipe import AugmentationRecipe, DataRecipe, read_recipe
from htsat_sed.training.run_folder import MetricsTable

RECIPES = Path(__file__).parents[2] / "recipes"


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
    with (tmp_path / "alone" / "metrics.csv").open() as file:  # which a repetition leaves
        assert curves[0] == [{k: v for k, v in row.items() if v} for row in csv.DictReader(file)]
    with pytest.raises(AnnotationError, match=r"another recipe \(seed differ\)"):
        fit(replace(recipe, seed=1), data, run=tmp_path / "alone", machine=CPU)


def test_a_run_on_changed_data_is_refused_and_restarts(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    table = folder / "weak.tsv"
    rows = table.read_text()
    recipe = replace(MIXED, data=(DataRecipe(kind="weak", table="weak.tsv"),), epochs=1)
    run = tmp_path / "run"
    once = fit(recipe, folder, run=run, machine=CPU)
    for changed, what in [
        (rows.replace("0.wav\tLow", "0.wav\tHigh"), "labels of weak.tsv"),
        (rows.replace("\tLow", "\tBell"), "classes, labels of weak.tsv"),
        ("filename\tevent_labels\n0.wav\tLow\n1.wav\tLow\n", "classes, labels and recordings of weak.tsv"),
    ]:
        table.write_text(changed)
        with pytest.raises(AnnotationError, match=rf"on other data \({what} differ\): give --restart"):
            fit(recipe, folder, run=run, machine=CPU)
    new = fit(recipe, folder, run=run, machine=CPU, restart=True)
    assert new.labels == ("Low",)
    table.write_text(rows)
    again = fit(recipe, folder, run=run, machine=CPU, restart=True)
    assert again.provenance == once.provenance
    assert torch.equal(again.tscam_conv.weight, once.tscam_conv.weight)
    for seconds, frequency in ((1.5, 440.0), (1.0, 7000.0)):  # another length; the same size, another sound
        write(folder / "audio" / "3.wav", seconds, frequency=frequency)
        with pytest.raises(AnnotationError, match=r"on other data \(recordings of weak.tsv differ\)"):
            fit(recipe, folder, run=run, machine=CPU)
    write(folder / "audio" / "3.wav", 1.0, frequency=600.0)  # as it was
    known = json.loads((run / "data.json").read_text())
    for part in known["tables"]:
        part.pop("contents")  # as in a run of an earlier version
    (run / "data.json").write_text(json.dumps(known))
    fit(recipe, folder, run=run, machine=CPU)


def test_a_folder_that_is_no_run_is_refused(data: Path, tmp_path: Path) -> None:
    before = sorted(data.rglob("*"))
    for run in (data, data / "clips.tsv"):
        with pytest.raises(AnnotationError, match="name another -o or --run"):
            fit(MIXED, data, run=run, machine=CPU)
    assert sorted(data.rglob("*")) == before


@pytest.mark.parametrize("name", ["recipe.json", "data.json", "finished.json", "last.ckpt"])
def test_a_damaged_run_folder_is_one_line(name: str, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit(MIXED, data, run=run, machine=CPU)
    for damaged in ("{", "[]", "3", "[" * 100_000):
        (run / name).write_text(damaged)
        with pytest.raises(HtsatSedError, match=r"give --restart"):
            fit(MIXED, data, run=run, machine=CPU)
    fit(MIXED, data, run=run, machine=CPU, restart=True)


@pytest.mark.parametrize("damaged", [b"a,b\n1,2\n", b"step\nten\n", b"step\n\xff\n"])
def test_a_damaged_table_of_metrics_is_one_line(damaged: bytes, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_bytes(damaged)
    with pytest.raises(AnnotationError, match=r"metrics.csv: cannot be read: give --restart"):
        MetricsTable(tmp_path, first=1)


HOLDING = """
import fcntl, sys
file = open(sys.argv[1], "a+")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the other process locks as POSIX has it")
def test_two_trainings_in_one_folder(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    fit(MIXED, data, run=run, machine=CPU)
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(run / "lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"held\n"
    with pytest.raises(HtsatSedError, match=r"another process is training here \(process \d+\)"):
        fit(MIXED, data, run=run, machine=CPU)
    other.kill()
    other.wait()
    if other.stdin:
        other.stdin.close()
    other.stdout.close()
    fit(MIXED, data, run=run, machine=CPU)  # what a killed process leaves does not count


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_a_disk_that_fills_while_saving_costs_no_state(data: Path, tmp_path: Path) -> None:
    """At the second epoch's end no file may be larger than 100 kB, wherever the temporary folder is."""
    import resource

    recipe = replace(MIXED, validation=(DataRecipe(kind="weak", table="weak.tsv"),), epochs=3)
    alone = fit(recipe, data, run=tmp_path / "alone", machine=CPU)
    step = Training.training_step
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def filling(self: Training, batch: Batch, i: int) -> torch.Tensor:
        if self.global_step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        return step(self, batch, i)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Training, "training_step", filling)
        patched.setattr("tempfile.tempdir", "/dev/shm")
        try:
            with pytest.raises(HtsatSedError, match=r"last\.ckpt: cannot be written: File too large"):
                fit(recipe, data, run=tmp_path / "run", machine=CPU)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            signal.signal(signal.SIGXFSZ, ignored)
    assert torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["global_step"] == 2
    assert not list((tmp_path / "run").glob(".*"))
    resumed = fit(recipe, data, run=tmp_path / "run", machine=CPU)
    assert torch.equal(resumed.tscam_conv.weight, alone.tscam_conv.weight)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="needs root to mount a small /dev/shm",
)
@pytest.mark.parametrize("how", ["size=1m", "ro"])
def test_readers_need_no_shared_memory(how: str, data: Path, tmp_path: Path) -> None:
    """Eight examples take 10 MB; of 1 MB of shared memory a reader would wait for more, for ever."""
    (tmp_path / "r.toml").write_text(
        "epochs = 1\nepoch_examples = 16\nbatch_size = 8\n[[data]]\nkind = 'weak'\ntable = 'weak.tsv'\n"
        "[model]\nembed_dim = 16\ndepths = [1, 1, 1, 1]\nheads = [1, 2, 2, 4]\n"
    )
    out = tmp_path / "o.safetensors"
    train = f"train {tmp_path / 'r.toml'} --data {data} -o {out} --device cpu --workers 1"
    mount = f"mount -t tmpfs -o {how} tmpfs /dev/shm"
    if subprocess.run(["unshare", "-m", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", f"{mount} && exec {sys.executable} -m htsat_sed {train}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert read_info(out).provenance["steps"] == 2


KILLED = """
import os, signal, sys
from htsat_sed.cli import main
from htsat_sed.training.module import Training

step = Training.training_step

def killed(self, batch, i):
    if self.global_step == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, i)

Training.training_step = killed
sys.argv[0] = "htsat-sed"
main()
"""


@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_run_killed_between_two_epochs_goes_on_from_there(
    keep: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "r.toml").write_text(
        f"epochs = 3\nepoch_examples = 4\nbatch_size = 2\nkeep = '{keep}'\n[[data]]\nkind = 'clips'\nmix = true\n"
        "[[validation]]\nkind = 'weak'\ntable = 'weak.tsv'\n"
        "[model]\nembed_dim = 16\ndepths = [1, 1, 1, 1]\nheads = [1, 2, 2, 4]\n"
    )
    recipe = read_recipe(tmp_path / "r.toml")
    alone = fit(recipe, data, run=tmp_path / "alone", machine=CPU)
    out = tmp_path / "killed.safetensors"
    options = ["train", str(tmp_path / "r.toml"), "--data", str(data), "-o", str(out)]
    done = subprocess.run(
        [sys.executable, "-c", KILLED.format(step=4), *options, "--device", "cpu", "--workers", "0"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not out.exists()

    steps: list[int] = []
    step = Training.training_step

    def noted(self: Training, batch: Batch, i: int) -> torch.Tensor:
        steps.append(self.global_step)
        return step(self, batch, i)

    monkeypatch.setattr(Training, "training_step", noted)
    run = tmp_path / "killed.run"
    killed = fit(recipe, data, run=run, machine=CPU, out=out)
    assert steps == [4, 5]
    for name, array in alone.state_dict().items():
        assert torch.equal(killed.state_dict()[name], array), name
    assert killed.provenance["validation"] == alone.provenance["validation"]
    assert (run / "metrics.csv").read_text() == (tmp_path / "alone" / "metrics.csv").read_text()


@pytest.mark.long
def test_two_processes(data: Path, tmp_path: Path) -> None:
    """On CPUs, found as such; the statistics of `bn0` are those of all examples."""
    (tmp_path / "r.toml").write_text(
        "epochs = 1\nepoch_examples = 16\nbatch_size = 8\naverage = 'none'\n"
        "[[data]]\nkind = 'weak'\ntable = 'weak.tsv'\n"
        "[model]\nembed_dim = 16\ndepths = [1, 1, 1, 1]\nheads = [1, 2, 2, 4]\n"
    )
    script = tmp_path / "htsat-sed"  # Lightning starts the second process by the name of the first
    script.write_text("from htsat_sed.cli import main\nif __name__ == '__main__':\n    main()\n")
    stored = []
    for devices, more in (("1", []), ("2", []), ("2", ["--accumulate", "2"])):
        out = tmp_path / f"{devices}{len(more)}.safetensors"
        options = ["train", str(tmp_path / "r.toml"), "--data", str(data), "-o", str(out), "--workers", "0"]
        done = subprocess.run(
            [sys.executable, str(script), *options, "--devices", devices, *more],
            capture_output=True,
            text=True,
            env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        )
        assert done.returncode == 0, done.stderr
        assert read_info(out).labels == ("High", "Low")
        stored.append(load_checkpoint(out).bn0)
    one, two, _ = stored
    torch.testing.assert_close(two.running_mean, one.running_mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(two.running_var, one.running_var, rtol=1e-3, atol=1e-3)


SILENT = ["home-silent", "home-silent-more"]


@pytest.mark.parametrize(
    "name", ["audioset", "esc50", "speech-commands", "desed", "home", "home-all", *SILENT]
)
def test_recipes_train(name: str, tmp_path: Path) -> None:
    """A few steps of every published recipe, on data in the form it wants, with a tiny model from scratch."""
    recipe = read_recipe(RECIPES / f"{name}.toml")
    make_data(name, tmp_path)
    rates = {"sample_rate": recipe.model.sample_rate, "hop_length": recipe.model.hop_length}
    small = replace(
        recipe,
        data=tuple(
            replace(part, share=1.0) for part in recipe.data
        ),  # each has an example in the small batch
        start="",
        epochs=2,
        epoch_examples=12,
        batch_size=12,
        average_epochs=1,
        model=replace(TINY, **rates),
        soundscapes=replace(recipe.soundscapes, validation=6),
    )
    model = fit(small, tmp_path, run=tmp_path / "run", machine=CPU)
    assert model.provenance["steps"] == 2
    assert model.config.loss == ("clip_ce" if recipe.loss == "cross-entropy" else "clip_bce")
    assert bool(model.provenance["validation"]) == bool(recipe.validation)
    assert (model.post_processing is not None) == (name in ("desed", "home"))


def test_a_class_that_is_always_unknown_is_not_trained(data: Path, tmp_path: Path) -> None:
    """Negatives as they are, below soundscapes and alone: the head of the class that may sound stays."""
    (data / "quiet.tsv").write_text("filename\tevent_labels\n0.wav\tHigh\n2.wav\tHigh\n")
    negatives = DataRecipe(kind="negatives", table="quiet.tsv")
    recipe = replace(
        MIXED,
        data=(*MIXED.data, replace(negatives, mix=True), negatives),
        soundscapes=replace(MIXED.soundscapes, silent=1.0),
        weight_decay=0.0,
        batch_size=4,
    )
    model = fit(recipe, data, run=tmp_path / "run", machine=CPU)
    torch.manual_seed(recipe.seed)
    start = HTSAT(HTSATConfig(classes=2, **vars(TINY)), ("High", "Low"))
    moved = (model.tscam_conv.weight != start.tscam_conv.weight).flatten(1).any(dim=1)
    assert moved.tolist() == [False, True]
    with pytest.raises(AnnotationError, match="has a label 'High' that the recipe lacks"):
        fit(replace(recipe, labels=("Low",)), data, run=tmp_path / "other", machine=CPU)


def test_recipes_are_found_by_name(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    options = ["--data", tmp_path / "none", "-o", tmp_path / "o.safetensors"]
    for named in (["esc50"], ["--recipe", "esc50"], [RECIPES / "esc50.toml"]):
        code, _, err = run("train", *named, *options)
        assert code == 1
        assert "esc50.csv: cannot be read" in err
    assert run("train", *options)[0] == run("train", "esc50", "--recipe", "home", *options)[0] == 2
    assert list(tmp_path.iterdir()) == []
    assert read_recipe("esc50") == read_recipe(RECIPES / "esc50.toml")
    with pytest.raises(
        AnnotationError, match=r"esc-50: is neither a file nor the name of a recipe; did you mean 'esc50'"
    ):
        read_recipe("esc-50")


def test_published_recipes_hold_the_authors_values() -> None:
    """Of their config.py, esc_config.py and sed_model.py."""
    for name, batch, mixup in (("audioset", 128, 0.5), ("esc50", 64, 0.0), ("speech-commands", 128, 0.0)):
        recipe = read_recipe(name)
        assert (recipe.batch_size, recipe.learning_rate, recipe.schedule) == (batch, 1e-3, "paper")
        assert (recipe.epochs, recipe.epoch_examples, recipe.gradient_clip) == (100, 0, 1.0)
        assert (recipe.weight_decay, recipe.decays) == (0.05, "all")
        augmentation = recipe.augmentation
        assert (augmentation.mixup, augmentation.time_shift) == (mixup, 0.0)
        assert not (augmentation.mixup and augmentation.mixup_labels)
        assert (augmentation.time_masks, augmentation.time_mask) == (2, 64)
        assert (augmentation.band_masks, augmentation.band_mask) == (2, 8)
        assert recipe.loss == ("cross-entropy" if name == "esc50" else "bce")
        assert recipe.model.sample_rate == 100 * recipe.model.hop_length
        assert recipe.model.sample_rate == (16_000 if name == "speech-commands" else 32_000)


@pytest.mark.parametrize("name", ["home", "home-all", *SILENT])
def test_the_bundled_recipes_mask_as_they_did(name: str) -> None:
    """Up to 32 frames and 8 bands, which was what the checkpoint was trained with."""
    torch.manual_seed(0)
    out = masked(
        torch.ones(400, 1001, 64), replace(read_recipe(name).augmentation, time_masks=1, band_masks=1)
    )
    assert (out == 0).all(dim=2).sum(dim=1).max() == 32
    assert (out == 0).all(dim=1).sum(dim=1).max() == 8


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
    elif name in SILENT:
        (folder / "homesounds").mkdir()
        make_data("home", folder / "homesounds")
        for i in range(4):
            write(folder / "elsewhere" / "audio" / f"{i}.wav", 0.5)
        rows = ["0.wav\t\t\t1\n", "1.wav\tLow\t\t2\n", "2.wav\t\tHigh\t3\n", "3.wav\t\t\t4\n"]
        header = "filename\tevent_labels\tpresent_labels\tfold\n"
        (folder / "elsewhere" / "labels.tsv").write_text(header + "".join(rows))
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
    assert model.provenance["validation"] == {"mAP": 0.6}  # of the epoch that is kept
    assert torch.equal(model.tscam_conv.weight, torch.load(tmp_path / "best.pt"))


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
    assert sorted(p.name for p in tmp_path.rglob(".htsat-sed.outputs")) == [".htsat-sed.outputs"]
    whole = out.read_bytes()
    for content, options, code in ((whole, "", 0), (b"mine", "", 2), (b"mine", " --overwrite", 0)):
        out.write_bytes(content)
        monkeypatch.setattr(sys, "argv", (command + options).split())
        with pytest.raises(SystemExit) as stopped:
            main()
        assert (stopped.value.code or 0) == code
        assert out.read_bytes() == (content if code else whole)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = '3'\n[[data]]\nkind = 'clips'", "wanted epochs to be an integer, got '3'"),
        ("epochs = true\n[[data]]\nkind = 'clips'", "wanted epochs to be an integer, got True"),
        ("epochs = 2.5\n[[data]]\nkind = 'clips'", "wanted epochs to be an integer, got 2.5"),
        ("tune = 1\n[[data]]\nkind = 'clips'", "wanted tune to be true or false, got 1"),
        ("labels = 'Dog'\n[[data]]\nkind = 'clips'", "wanted labels to be a list, got 'Dog'"),
        ("labels = [1]\n[[data]]\nkind = 'clips'", r"wanted labels\[1\] to be text, got 1"),
        ("loss = 3\n[[data]]\nkind = 'clips'", "wanted loss to be text, got 3"),
        (
            "learning_rate = nan\n[[data]]\nkind = 'clips'",
            "wanted learning_rate to be a finite number, got nan",
        ),
        ("learning_rate = 1" + "0" * 400 + "\n[[data]]\nkind = 'clips'", "not a recipe: "),
        ("model = 3\n[[data]]\nkind = 'clips'", "wanted a table model, got 3"),
        ("data = [3]", "wanted a table data, got 3"),
        ("[[data]]\nkind = 'clips'\nfolds = [[1]]", r"wanted data.folds\[1\] to be an integer, got \[1\]"),
        ("[soundscapes]\ngain_db = [1.0]", "wanted soundscapes.gain_db to be a list of 2 values"),
        ("[model]\nheads = {a = 1}", "wanted model.heads to be a list"),
        ("seed = -1\n[[data]]\nkind = 'clips'", "wanted a seed from 0 to 4294967295, got -1"),
        ("[soundscapes]\nspeed = -0.1", "wanted speed of at least 0"),
        ("seed = " + "[" * 5_000 + "]" * 5_000, "nested too deeply"),
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
        ("[soundscapes]\nsilent = 1.5", "wanted silent to be a probability"),
        (
            "[[data]]\nkind = 'clips'\n[[validation]]\nkind = 'negatives'",
            r"wanted \[\[validation\]\] data of another kind than negatives",
        ),
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
