"""Checkpoints made to take memory or time, or to compute nonsense: one line, before anything is built."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TINY, tiny_model
from torch import Tensor

from htsat_sed.errors import CheckpointError
from htsat_sed.model.checkpoint import load_checkpoint, load_encoder, read_info, save_checkpoint
from htsat_sed.model.htsat import HTSAT, HTSATConfig, array_shapes

resource = pytest.importorskip("resource", reason="memory is bounded by POSIX's means")

LABELS = ["Dog", "Cat", "Rain", "Speech, male"]


def described(path: Path, arrays: dict[str, Tensor] | None = None, **changes: Any) -> Path:
    """A file of ours with the arrays of a tiny model and a description that says something else."""
    header = {
        "format": 1,
        "config": asdict(TINY),
        "labels": LABELS,
        "post_processing": None,
        "provenance": {},
    }
    header["config"] |= changes.pop("config", {})
    entry = changes.pop("entry", None) or json.dumps(header | changes)
    path.write_bytes(safetensors.torch.save(arrays or tiny_model().state_dict(), {"htsat_sed": entry}))
    return path


@given(
    st.integers(1, 40),
    st.tuples(*[st.integers(1, 3)] * 4),
    st.tuples(*[st.sampled_from([1, 2, 4])] * 4),
    st.sampled_from([1.0, 2.5, 4.0]),
)
@settings(max_examples=8)
def test_shapes_are_those_of_the_model(
    classes: int, depths: tuple[int, ...], heads: tuple[int, ...], mlp_ratio: float
) -> None:
    config = HTSATConfig(classes=classes, embed_dim=12, depths=depths, heads=heads, mlp_ratio=mlp_ratio)
    expected = {key: tuple(array.shape) for key, array in HTSAT(config).state_dict().items()}
    assert list(array_shapes(config).items()) == list(expected.items())


def test_a_great_configuration_is_refused_before_it_is_built(tmp_path: Path) -> None:
    """Each of these took over 4 GB, or minutes."""
    great: list[dict[str, Any]] = [
        {"depths": [2, 2, 100_000, 2]},
        {"depths": [48, 48, 48, 48]},
        {"depths": [1.0, 2, 1, 1]},
        {"embed_dim": 1024},
        {"embed_dim": 1_000_000},
        {"heads": [16, 32, 64, 128]},
        {"heads": [16, 2, 2, "4"]},
        {"n_fft": 1_000_000_000},
        {"hop_length": 1_000_000},
        {"sample_rate": 10**12},
        {"classes": 90_000},
        {"mlp_ratio": 1e9},
        {"mlp_ratio": float("nan")},
        {"fmax": float("inf")},
        {"fmax": 1e308},
        {"fmax": 10**400},
        {"fmin": -(10**400)},
        {"mlp_ratio": 10**400},
        {"drop_path": 10**400},
        {"fmin": 0.0, "fmax": 1e-320},
    ]
    for number, config in enumerate(great):
        described(tmp_path / f"{number}.safetensors", config=config)
    described(tmp_path / "nested.safetensors", entry="[" * 200_000)
    described(tmp_path / "long.safetensors", entry=" " * (17 << 20))
    unfolding = {f"sed_model.{key}": array for key, array in tiny_model().state_dict().items()}
    unfolding = {key.replace("backbone.", ""): array for key, array in unfolding.items()}
    unfolding["sed_model.tscam_conv.weight"] = torch.zeros(1).expand(90_000, 128, 2, 3)
    torch.save(unfolding, tmp_path / "stride.ckpt")
    unfolding["sed_model.tscam_conv.weight"] = torch.zeros(1).expand(4, 128, 2, 3)
    unfolding["sed_model.logmel_extractor.melW"] = torch.zeros(1).expand(10_000_000, 64)
    torch.save(unfolding, tmp_path / "mel.ckpt")
    bomb = b"\x80\x02(" + b"]" * 30_000_000 + b"l."
    with zipfile.ZipFile(tmp_path / "deflated.ckpt", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data.pkl", bomb)
    with zipfile.ZipFile(tmp_path / "oversized.ckpt", "w") as archive:
        archive.writestr("archive/data.pkl", bomb)
    (tmp_path / "legacy.ckpt").write_bytes(bomb)
    script = (
        "import pathlib, resource, sys\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (60, 60))\n"
        "from htsat_sed import CheckpointError, load_checkpoint\n"
        "load_checkpoint('home')\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    try:\n"
        "        load_checkpoint(path)\n"
        "    except CheckpointError as error:\n"
        "        assert str(error).startswith(f'{path}: ') and '\\n' not in str(error), error\n"
        "    else:\n"
        "        print(path, 'was loaded')\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True)
    assert done.stderr == "", done.stderr
    assert int(done.stdout) < 500  # MB beyond what the bundled checkpoint takes


class Encoded:
    """Bytes that double each time they are read."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        import _codecs

        inner = Encoded(self.rounds - 1) if self.rounds else b"x" * 1000
        return _codecs.encode, (inner, "hex")


def test_bytes_that_grow_while_they_are_read_are_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "x": Encoded(3)}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match="encodes bytes as more bytes"):
        load_checkpoint(tmp_path / "a.ckpt")


def shared_tuples(count: int) -> bytes:
    """Each tuple holds the one before twice; the last is the key of a dict."""
    pairs = b"".join(b"h%c" % i + b"\x86q%c" % (i + 1) for i in range(count))
    return b"}K\x01q\x00" + pairs + b"K\x01s"


def shared_list(count: int) -> bytes:
    """Sets of one list, again and again."""
    sets = b"cbuiltins\nset\nq\x01" + b"h\x01h\x00\x85R" * count
    return b"]q\x00(" + b"K\x01" * 20_000 + b"e" + sets


def pairs(count: int) -> bytes:
    """Tuples of two whole numbers, which could be chosen to have one hash, each followed by None."""
    return b"".join(b"J" + i.to_bytes(4, "little") + b"K\x01\x86N" for i in range(count))


KEYS = "keys that are not plain names"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"}(" + pairs(4_000) + b"u", KEYS),
        (b"}" + pairs(4_000).replace(b"\x86N", b"\x86Ns}"), KEYS),
        (b"cbuiltins\nset\n](" + pairs(4_000) + b"e\x85R", KEYS),
        (b"ccollections\nCounter\n](" + pairs(4_000) + b"e\x85R", KEYS),
        (b"}(" + b"cbuiltins\ncomplex\nK\x01K\x01\x86RN" * 4_000 + b"u", KEYS),
        (shared_tuples(60), "contain one another again and again"),
        (b"}K\x01" + b"\x85" * 500_000 + b"K\x01s", "contain one another again and again"),
        (shared_list(20_000), KEYS),
        (b"}(" + b"".join(b"\x8a\x0c" + bytes([*i.to_bytes(4), *[1] * 8]) + b"N" for i in range(20_000)) + b"u", "long integers"),
    ],
    ids=["keys of one dict", "keys of many dicts", "a set", "a counter", "complex keys", "shared tuples", "deep tuples", "sets of one list", "long integers"],
)  # fmt: skip
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_takes_hours_to_hash_is_refused(
    tmp_path: Path, content: bytes, reason: str, zipped: bool
) -> None:
    path, content = tmp_path / "a.ckpt", b"\x80\x02" + content + b"."
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", content)
    else:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=reason):
        load_checkpoint(path)


def official() -> dict[str, Tensor]:
    state = {f"sed_model.{key}": array for key, array in tiny_model().state_dict().items()}
    return {key.replace("backbone.", ""): array for key, array in state.items()}


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (torch.zeros(128).to_sparse(), "norm.bias as a sparse array"),
        (torch.zeros(128, device="meta"), "norm.bias as a meta array"),
        (torch.zeros(128, dtype=torch.complex64), "norm.bias as a complex array"),
        (torch.tensor(0.0), r"norm.bias has shape \(\), wanted \(128,\)"),
    ],
)
def test_arrays_that_are_no_plain_numbers(tmp_path: Path, array: Tensor, reason: str) -> None:
    torch.save(official() | {"sed_model.norm.bias": array}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=reason):
        load_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_quantised_arrays(tmp_path: Path) -> None:
    array = torch.quantize_per_tensor(torch.zeros(128), 0.1, 0, torch.qint8)
    torch.save(official() | {"sed_model.norm.bias": array}, tmp_path / "a.ckpt")
    with pytest.raises(CheckpointError, match=r"norm\.bias as a quantised array|cannot be read as a PyTorch"):
        load_checkpoint(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    "change",
    [
        {"layers.0.blocks.0.mlp.fc1.weight": torch.zeros(64, 0)},
        {"layers.0.blocks.0.mlp.fc1.weight": torch.tensor(1.0)},
        {"layers.0.blocks.0.attn.relative_position_bias_table": torch.zeros(225)},
        {"patch_embed.proj.weight": torch.tensor(1.0)},
        {"tscam_conv.weight": torch.tensor(1.0)},
        {"tscam_conv.weight": torch.zeros(0, 128, 2, 3)},
        {"logmel_extractor.melW": torch.zeros(1, 64)},
        {"logmel_extractor.melW": torch.zeros(0, 64)},
        {"logmel_extractor.melW": torch.zeros(513)},
        {"layers.0.blocks.0.attn.relative_position_bias_table": torch.zeros(225, 0)},
    ],
)
def test_official_arrays_of_impossible_shapes(tmp_path: Path, change: dict[str, Tensor]) -> None:
    torch.save(official() | {f"sed_model.{key}": array for key, array in change.items()}, tmp_path / "a.ckpt")
    for read in (load_checkpoint, read_info):
        with pytest.raises(CheckpointError) as caught:
            read(tmp_path / "a.ckpt")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("bn0.running_var", -1.0, "bn0.running_var holds a negative variance"),
        ("bn0.running_var", torch.inf, "bn0.running_var holds NaN or infinity"),
        ("tscam_conv.bias", torch.nan, "tscam_conv.bias holds NaN or infinity"),
        ("backbone.layers.2.blocks.0.mlp.fc1.weight", 1e30, "holds 1e[+]30, which no training produces"),
        ("bn0.weight", 1e38, "bn0.weight holds 1e[+]38, which no training produces"),
    ],
)
def test_weights_that_compute_nothing(tmp_path: Path, name: str, value: float, reason: str) -> None:
    state = tiny_model().state_dict()
    state[name] = torch.full_like(state[name], value)
    with pytest.raises(CheckpointError, match=reason):
        load_checkpoint(described(tmp_path / "a.safetensors", state))
    if not name.startswith("tscam_conv"):
        with pytest.raises(CheckpointError, match=reason):
            load_encoder(tmp_path / "a.safetensors")


@pytest.mark.parametrize("level", [0.0, 1e-4, 1.0])
def test_the_largest_weights_that_load_compute_numbers(tmp_path: Path, level: float) -> None:
    state = tiny_model().state_dict()
    for name, array in state.items():
        if name.endswith("running_var"):
            state[name] = torch.zeros_like(array)  # what divides most
        elif array.is_floating_point():
            state[name] = torch.full_like(array, 1e3)
    model = load_checkpoint(described(tmp_path / "a.safetensors", state))
    waveform = level * torch.linspace(0, 3e4, model.config.window_samples).sin()[None]
    with torch.inference_mode():
        assert all(output.isfinite().all() for output in model(waveform))


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (["Dog", "Cat", "Rain", " "], "wanted labels with a name, got the blank ' '"),
        (["Dog", "Cat", "Rain", "\ud800"], "wanted labels of valid Unicode"),
        (["Dog", "Cat", "Rain", "Dog"], "wanted distinct labels, got 'Dog' twice"),
        (["Dog", "Cat", "Rain", 3], "wanted labels of text, got 3"),
        (["Dog", "Cat", "Rain"], "wanted 4 labels, one per class, got 3"),
    ],
)
def test_labels_that_name_nothing(tmp_path: Path, labels: list[Any], reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        read_info(described(tmp_path / "a.safetensors", labels=labels))


def test_arrays_of_a_kind_that_no_model_has(tmp_path: Path) -> None:
    state = tiny_model().state_dict()
    for name, kind in (("tscam_conv.bias", torch.int64), ("bn0.num_batches_tracked", torch.float32)):
        changed = state | {name: state[name].to(kind)}
        with pytest.raises(CheckpointError, match=f"holds {name} as "):
            load_checkpoint(described(tmp_path / "a.safetensors", changed))


def test_a_file_that_begins_as_a_zip_archive_and_is_none(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.safetensors", tiny_model())
    content = OrderedDict(a=1)
    (tmp_path / "a.ckpt").write_bytes(pickle.dumps(content, protocol=2))
    with zipfile.ZipFile(tmp_path / "a.ckpt", "a") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
    with pytest.raises(CheckpointError, match="cannot be read as a PyTorch checkpoint"):
        load_checkpoint(tmp_path / "a.ckpt")
