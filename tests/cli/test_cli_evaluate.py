"""`htsat-sed evaluate` on real files."""

import hashlib
import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from golden.reference_state import recording

from htsat_sed.annotations import write_presence_map
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.model.checkpoint import load_checkpoint, save_checkpoint
from htsat_sed.model.htsat import HTSAT, HTSATConfig

DESED = Path(__file__).parents[1] / "data" / "desed_public_eval"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(run: Run) -> Run:
    """Run `htsat-sed evaluate ...`: exit code, standard output, standard error."""
    return partial(run, "evaluate")


@pytest.fixture
def maps(tmp_path: Path) -> Path:
    """Two presence maps: a dog found exactly, a cat that is none."""
    folder = tmp_path / "maps"
    folder.mkdir()
    for name, row in (("a.wav", slice(0, 8)), ("b.wav", slice(16, 24))):
        scores = np.zeros((32, 2), np.float32)
        scores[row, 0 if name == "a.wav" else 1] = 0.8
        presence = PresenceMap(scores, ("Dog", "Cat"), 0.3125, 10.0)
        write_presence_map(folder / f"{name}.npz", presence, filename=name)
    return folder


def reference(path: Path, *rows: str) -> Path:
    path.write_text("filename\tonset\toffset\tevent_label\n" + "".join(f"{row}\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("detections", "macro"),
    [
        ("htsat_single", ["48.42 %", "6.76 %", "69.80 %"]),
        ("htsat_ensemble", ["50.67 %", "8.02 %", "70.64 %"]),
    ],
)
def test_published_figures_from_one_command(run: Run, detections: str, macro: list[str]) -> None:
    code, out, err = run(DESED / "reference.tsv", DESED / f"{detections}.tsv")
    assert code == 0
    found = [line.split(": ")[1] for line in out.splitlines() if "macro f1" in line]
    assert [found[0], found[1], found[3]] == macro
    assert err.startswith("warning: 57 recordings without estimates: ") == (detections == "htsat_single")


@pytest.mark.long
def test_same_bytes_twice(run: Run, tmp_path: Path) -> None:
    written = []
    for turn in ("one", "two"):
        files = {kind: tmp_path / f"{turn}.{kind}" for kind in ("json", "csv", "png", "svg")}
        arguments = (DESED / "reference.tsv", DESED / "htsat_single.tsv", "--bootstrap", 50)
        _, out, _ = run(*arguments, "--json", files["json"], "--csv", files["csv"], "--plot", files["png"])
        run(*arguments, "--plot", files["svg"])
        written.append([out, *(file.read_bytes() for file in files.values())])
    assert written[0] == written[1]
    report = json.loads((tmp_path / "one.json").read_text())
    assert report["recordings"] == 692
    collar = next(metric for metric in report["metrics"] if metric["name"] == "collar")
    assert collar["parameters"] == {"onset_collar": 0.2, "offset_collar": 0.2, "offset_share": 0.2}
    assert collar["headline"]["macro_f1"]["low"] < collar["headline"]["macro_f1"]["value"]
    assert list(report["versions"]) == ["htsat-sed", "numpy", "scipy", "pandas"]
    assert (report["settings"]["bootstrap"], report["settings"]["seed"]) == (50, 0)
    assert report["remarks"] == ["57 recordings without estimates: scored as without estimated events"]
    assert report["inputs"]["reference"] == {
        "path": str(DESED / "reference.tsv"),
        "sha256": hashlib.sha256((DESED / "reference.tsv").read_bytes()).hexdigest(),
    }
    rows = (tmp_path / "one.csv").read_text().splitlines()
    assert rows[0] == "metric,class,figure,value,low,high"
    metric, label, figure, *values = rows[1].split(",")
    assert (metric, label, figure) == ("intersection", "*", "macro_f1")
    assert float(values[0]) == pytest.approx(0.4842346878849411, abs=1e-12)
    assert float(values[1]) < float(values[0]) < float(values[2])
    assert "segment,Speech,tp,1595.0,," in rows
    averages = [row.split(",") for row in rows if "micro_" in row or "macro_" in row]
    assert len(averages) == 4 * 6
    assert all(float(low) < float(value) < float(high) for _, _, _, value, low, high in averages)


def test_presence_maps_alone(run: Run, maps: Path, tmp_path: Path) -> None:
    labels = reference(tmp_path / "reference.tsv", "a.wav\t0\t2.5\tDog", "b.wav\t0\t2.5\tCat")
    code, out, err = run(labels, "--scores", maps, "--json", tmp_path / "scores.json")
    assert (code, err) == (0, "")
    metrics = {
        metric["name"]: metric for metric in json.loads((tmp_path / "scores.json").read_text())["metrics"]
    }
    assert list(metrics) == ["intersection", "collar", "onset", "segment", "psds1", "psds2", "clip"]
    assert metrics["intersection"]["classes"]["Dog"]["f1"] == 1.0
    assert metrics["intersection"]["classes"]["Cat"] == {
        "f1": 0.0,
        "precision": 0.0,
        "recall": 0.0,
        "reference": 1.0,
        "estimated": 1.0,
        "tp": 0.0,
        "fp": 1.0,
        "fn": 1.0,
    }
    assert metrics["clip"]["headline"]["map"]["value"] == 1.0
    assert metrics["psds1"]["parameters"]["thresholds"] == "all"
    assert "PSDS scenario 1" in out


def test_presence_maps_with_the_post_processing_of_their_checkpoint(
    run: Run, maps: Path, tmp_path: Path
) -> None:
    labels = reference(tmp_path / "reference.tsv", "a.wav\t0\t2.5\tDog", "b.wav\t0\t2.5\tCat")
    model = HTSAT(
        HTSATConfig(classes=2, embed_dim=16, depths=(1, 1, 1, 1), heads=(1, 2, 2, 4)), ("Dog", "Cat")
    )
    save_checkpoint(
        tmp_path / "c.safetensors", model, post_processing={"classes": {"Cat": {"threshold": 0.9}}}
    )
    given = (labels, "--scores", maps, "-c", tmp_path / "c.safetensors", "--json", tmp_path / "all.json")
    assert run(*given)[0] == 0
    report = json.loads((tmp_path / "all.json").read_text())
    assert report["metrics"][0]["classes"]["Dog"]["estimated"] == 1.0
    assert report["metrics"][0]["classes"]["Cat"]["estimated"] == 0.0
    assert report["post_processing"]["classes"] == {"Cat": {"threshold": 0.9}}
    assert [each["path"] for each in report["inputs"]["checkpoints"]] == [str(tmp_path / "c.safetensors")]


def test_presence_maps_with_the_thresholds_of_their_class_map(run: Run, maps: Path, tmp_path: Path) -> None:
    labels = reference(tmp_path / "reference.tsv", "a.wav\t0\t2.5\tDog", "b.wav\t0\t2.5\tCat")
    (tmp_path / "map.toml").write_text('Dog = ["Bark"]\nCat = ["Meow"]\n[thresholds]\nCat = 0.9\n')
    given = (labels, "--scores", maps, "--map", tmp_path / "map.toml")
    assert run(*given, "--json", tmp_path / "map.json")[0] == 0
    report = json.loads((tmp_path / "map.json").read_text())
    assert report["metrics"][0]["classes"]["Cat"]["estimated"] == 0.0
    assert report["post_processing"]["classes"] == {"Cat": {"threshold": 0.9}}
    assert report["inputs"]["class_map"]["path"] == str(tmp_path / "map.toml")
    assert run(*given, "--threshold", "Cat=0.1", "--json", tmp_path / "flag.json")[0] == 0
    report = json.loads((tmp_path / "flag.json").read_text())
    assert report["metrics"][0]["classes"]["Cat"]["estimated"] == 1.0
    (tmp_path / "other.toml").write_text('Pet = ["Dog", "Cat"]\n')
    code, _, err = run(labels, "--scores", maps, "--map", tmp_path / "other.toml")
    assert code == 2
    assert err.endswith("other.toml: these presence maps have none of its classes; they have 'Cat'\n")


def test_presence_maps_of_the_bundled_checkpoint_have_its_post_processing(run: Run, tmp_path: Path) -> None:
    home = load_checkpoint("home")
    scores = np.zeros((32, len(home.labels)), np.float32)
    column = home.labels.index("Bark")
    threshold = home.post_processing["classes"]["Bark"]["threshold"]
    scores[4:16, column] = (threshold + 0.5) / 2 if threshold < 0.5 else threshold / 2 + 0.5
    presence = PresenceMap(scores, tuple(home.labels), 0.3125, 10.0)
    (tmp_path / "maps").mkdir()
    write_presence_map(tmp_path / "maps" / "a.wav.npz", presence, filename="a.wav")
    labels = reference(tmp_path / "reference.tsv", "a.wav\t1.25\t5\tBark")
    told = "note: using the post-processing of checkpoint home, which has the same classes as the presence maps; -c selects another\n"
    one, other = (
        run(labels, "--scores", tmp_path / "maps"),
        run(labels, "--scores", tmp_path / "maps", "-c", "home"),
    )
    assert one[:2] == other[:2]
    assert "macro f1: 100.00 %" in one[1]
    assert (told in one[2], told in other[2]) == (True, False)


def test_values_for_events_that_are_there_already_are_refused(run: Run, tmp_path: Path) -> None:
    labels = reference(tmp_path / "reference.tsv", "a.wav\t0\t2.5\tDog")
    code, out, err = run(labels, labels, "--threshold", "0.9")
    assert (code, out) == (2, "")
    assert "events are scored as they are" in " ".join(err.replace("│", "").split())


def test_class_without_reference_is_said_to_be_left_out(run: Run, maps: Path, tmp_path: Path) -> None:
    labels = reference(tmp_path / "reference.tsv", "a.wav\t0\t2.5\tDog", "b.wav\t\t\t")
    code, out, err = run(labels, "--scores", maps, "--class", "Dog", "--class", "Horse")
    assert code == 0
    assert "macro f1: 100.00 %" in out
    assert "note: Horse: without reference events: left out of the averages" in err


def test_micro_averages_stand_below_their_own_headings(run: Run, tmp_path: Path) -> None:
    labels = reference(tmp_path / "reference.tsv", "a.wav\t0\t2\tDog", "a.wav\t4\t6\tDog")
    events = reference(tmp_path / "events.tsv", "a.wav\t0\t2\tDog")
    code, out, _ = run(labels, events, "--beta", 2)
    assert code == 0
    lines = out.split("intersection-based F1 (DTC 0.5, GTC 0.5, CTTC 0.3), F-beta with beta 2\n")[
        1
    ].splitlines()
    one, micro = (
        next(line.split() for line in lines if line.startswith(start)) for start in (" Dog", " all (micro)")
    )
    assert one[1:] == micro[2:] == ["66.67", "55.56", "100.00", "50.00", "2", "1", "1", "0", "1"]


def test_tags_against_weak_labels(run: Run, tmp_path: Path) -> None:
    (tmp_path / "weak.tsv").write_text("filename\tevent_labels\na.wav\tDog\nb.wav\tCat\nc.wav\tDog\n")
    (tmp_path / "tags.csv").write_text(
        "filename,event_label,score\na.wav,Dog,0.9\na.wav,Cat,0.2\nb.wav,Dog,0.8\nb.wav,Cat,0.6\nc.wav,Dog,0.7\nc.wav,Cat,0.1\n"
    )
    (tmp_path / "events.tsv").write_text("filename\tonset\toffset\tevent_label\na.wav\tnone\t1\tDog\n")
    for also in ([], ["--scores", tmp_path]):
        code, _, err = run(tmp_path / "weak.tsv", tmp_path / "events.tsv", *also)
        assert code == 1
        assert "has weak labels" in err
    code, out, _ = run(tmp_path / "weak.tsv", tmp_path / "tags.csv")
    assert code == 0
    # Dog: 0.9 hit, 0.8 miss, 0.7 hit: AP (1 + 2/3) / 2, AUC 1/2. Cat: 1 and 1.
    assert "mAP: 0.9167\n" in out
    assert "AUC: 0.7500\n" in out
    # Of the mean AUC: sqrt(2) times the 75 % quantile of a normal distribution.
    assert "d-prime: 0.9539\n" in out


def test_audio_is_detected_first(run: Run, tmp_path: Path) -> None:
    config = HTSATConfig(classes=2, embed_dim=16, depths=(1, 1, 1, 1), heads=(1, 2, 2, 4))
    save_checkpoint(tmp_path / "tiny.safetensors", HTSAT(config, ("Dog", "Cat")))
    audio = tmp_path / "audio"
    audio.mkdir()
    for i, name in enumerate(("a.wav", "b.wav")):
        soundfile.write(audio / name, recording(4.0, 32_000, i), 32_000)
    (audio / "broken.wav").touch()
    (audio / "unlabelled.wav").touch()
    labels = reference(
        tmp_path / "reference.tsv", "a.wav\t0\t2.5\tDog", "b.wav\t0\t1\tCat", "broken.wav\t\t\t"
    )
    with torch.random.fork_rng(devices=[]):
        code, out, err = run(
            *(labels, "--audio", audio, "-c", tmp_path / "tiny.safetensors", "--threshold", 0.2),
            *("--json", tmp_path / "scores.json", "--runtime", "torch"),
        )
    assert code == 1
    assert f"error: {audio}/broken.wav: " in err
    assert "unlabelled" not in err
    asked = json.loads((tmp_path / "scores.json").read_text())
    assert list(asked["inputs"]) == ["reference", "audio", "checkpoints"]
    assert asked["post_processing"]["threshold"] == 0.2
    assert (asked["detection"]["runtime"], asked["detection"]["precision"]) == ("torch", "float32")
    assert "PSDS scenario 2" in out
    code, out, _ = run(
        *(labels, "--audio", f"{audio}/[ab].wav", "-c", tmp_path / "tiny.safetensors"),
        *("--json", tmp_path / "scores.json", "--runtime", "torch"),
    )
    assert (code, "PSDS scenario 2" in out) == (0, True)
    assert json.loads((tmp_path / "scores.json").read_text())["inputs"]["audio"] == {
        "path": f"{audio}/[ab].wav"
    }


def test_names_that_do_not_fit(run: Run, maps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = reference(tmp_path / "reference.tsv", "day/c.wav\t0\t2.5\tDog")
    code, out, err = run(labels, "--scores", maps)
    assert (code, out) == (1, "")
    assert err.endswith("in common: the reference has 'day/c.wav', the estimates 'a.wav'\n")
    code, out, err = run(labels, "--audio", DESED.parents[1] / "data")
    assert (code, out) == (1, "")
    monkeypatch.setitem(sys.modules, "htsat_sed.detection.detector", None)  # told before a model is loaded
    for absent in (tmp_path / "none", tmp_path / ("a" * 300)):
        code, _, err = run(labels, "--audio", absent, "-c", "home")
        assert (code, err) == (1, f"error: {absent}: no such folder\n")


def test_every_recording_has_every_class(run: Run, maps: Path, tmp_path: Path) -> None:
    labels = reference(tmp_path / "reference.tsv", "a.wav\t0\t2.5\tDog")
    code, out, err = run(labels, "--scores", maps, "--json", tmp_path / "scores.json")
    assert code == 0
    assert "PSDS: 1.0000\n" in out
    assert "warning: no clip-level metrics: wanted a class that some recordings have and others lack" in err
    assert len(json.loads((tmp_path / "scores.json").read_text())["metrics"]) == 6


def test_tables_are_read_before_torch_is_loaded(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = reference(tmp_path / "reference.tsv", "a.wav\t0\t2.5\tDog")
    for late in ("model.checkpoint", "detection.detector", "evaluation.evaluate"):
        monkeypatch.setitem(sys.modules, f"htsat_sed.{late}", None)  # cannot be imported
    code, _, err = run(labels, tmp_path / "none.tsv")
    assert (code, err) == (1, f"error: {tmp_path}/none.tsv: cannot be read: No such file or directory\n")


def test_rules_for_maps(run: Run, maps: Path, tmp_path: Path) -> None:
    labels = reference(tmp_path / "reference.tsv", "a.wav\t0\t2.5\tDog", "b.wav\t0\t2.5\tCat")
    _, out, _ = run(labels, "--scores", maps, "--threshold", "Cat=0.9")
    assert next(line.split() for line in out.splitlines() if line.startswith(" Cat"))[5] == "0"
    asked = tmp_path / "asked.json"
    edges = ("--edge-level", "0.3", "--edge-level", "Cat=0.5")
    assert run(labels, "--scores", maps, *edges, "--json", asked)[0] == 0
    rules = json.loads(asked.read_text())["post_processing"]
    assert (rules["edge_level"], rules["classes"]["Cat"]["edge_level"]) == (0.3, 0.5)
    code, _, err = run(labels, "--scores", maps, "--threshold", "Cta=0.9")
    assert code == 2
    assert "no class 'Cta'" in err


def test_tuned_rules_are_taken(run: Run, maps: Path, tmp_path: Path) -> None:
    labels = reference(tmp_path / "reference.tsv", "a.wav\t0\t2.5\tDog", "b.wav\t5\t7.5\tCat")
    (tmp_path / "tuned.toml").write_text("threshold = 0.9\n[classes.Dog]\nthreshold = 0.5\n")
    _, out, _ = run(labels, "--scores", maps, "--post-processing", tmp_path / "tuned.toml")
    assert "macro f1: 50.00 %" in out


def test_help_names_every_metric(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run("--help")
    assert code == 0
    # Lists and examples are written to fit: no line of theirs is broken.
    assert " - psds2: PSDS scenario 2 (DTC 0.1, GTC 0.1, CTTC 0.3, alpha_CT 0.5) " in out
    assert "   htsat-sed evaluate reference.tsv --audio recordings/ -c audioset --map desed" in out
    for word in (
        "--check",
        "sed_eval",
        "psds_eval",
        "PSDS",
        "mAP",
        "AUC",
        "d-prime",
        "bootstrap",
        "DESED",
        "event_labels",
    ):
        assert word in out


def test_wrong_usage(run: Run, maps: Path, tmp_path: Path) -> None:
    labels = reference(tmp_path / "reference.tsv", "a.wav\t0\t2.5\tDog", "b.wav\t0\t1\tCat")
    assert run(labels)[0] == 2
    assert run(labels, "--scores", maps, "--audio", tmp_path)[0] == 2
    assert run(labels, "--scores", maps, "--dtc", 2)[0] == 2
    assert run(labels, "--scores", maps, "--plot", tmp_path / "x.bmp")[0] == 2
    assert run(labels, "--scores", maps, "--bootstrap", -1)[0] == 2
    (tmp_path / "tags.csv").write_text("filename,event_label,score\na.wav,Dog,0.9\n")
    assert run(labels, tmp_path / "tags.csv", "--scores", maps)[0] == 2
    assert run(labels, "--scores", maps, "--json", tmp_path / "no" / "x.json")[0] == 1
    code, _, err = run(labels, "--scores", tmp_path / "empty")
    assert code == 1
    assert err.startswith(f"error: {tmp_path}/empty: ")


@pytest.mark.parametrize("given", [("--hop", "5"), ("--device", "cpu"), ("--precision", "bfloat16")])
def test_options_of_detection_without_one_are_refused(
    given: tuple[str, str], run: Run, tmp_path: Path
) -> None:
    labels = tmp_path / "labels.tsv"
    labels.write_text("filename\tonset\toffset\tevent_label\na.wav\t0\t1\tDog\n")
    code, out, err = run(labels, labels, *given)
    assert (code, out, given[0] in err, "has no effect, because the model does not run" in err) == (
        2,
        "",
        True,
        True,
    )
