"""Every command, on a terminal, with labels and names that are markup, escape sequences and reversed text."""

from __future__ import annotations

import os
import pty
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import typer

from htsat_sed.annotations import write_events
from htsat_sed.cli import app, main
from htsat_sed.detection.events import Event
from htsat_sed.model.checkpoint import save_checkpoint
from htsat_sed.model.htsat import HTSAT, HTSATConfig

HOSTILE = "[music] [/b] :dog: \x1b]0;owned\x07\x1b[2J\x9b2J\u202eevil"
NAME = HOSTILE.replace("/", "") + ".wav"
SEQUENCES = ("\x1b]", "\x07", "\x1b[2J", "\x9b", "\u202e")
SHOWN = r"[music] [/b] :dog: \x1b]0;owned\x07\x1b[2J\x9b2J\u202eevil"
RATE = 32_000

# Arguments, and whether a label is shown. A command that is not listed gets the name and the checkpoint.
COMMANDS: dict[str, tuple[Sequence[str], bool]] = {
    "detect": ((NAME, "-c", "m.safetensors", "--threshold", "0.01"), True),
    "tag": ((NAME, "-c", "m.safetensors"), True),
    "evaluate": (("r.tsv", "r.tsv"), True),
    "plot": ((NAME, "-c", "m.safetensors", "-o", "p.png"), False),
    "segments": (("r.tsv", "--audio", ".", "-o", f"clips {NAME}", "--labels", HOSTILE), False),
    "summary": (("r.tsv", "-o", NAME, "--labels", HOSTILE), False),
    "convert": (("r.tsv", "-o", f"{NAME}.csv", "--labels", HOSTILE), False),
    "tune": (("r.tsv", "--audio", ".", "-c", "m.safetensors", "-o", f"{NAME}.toml", "--folds", "2"), True),
    "train": ((f"{NAME}.toml", "--data", NAME, "-o", NAME), False),
    "soundscapes": ((f"{NAME}.toml", "--data", NAME, "-o", NAME, "--count", "1"), False),
    "checkpoints list": ((), False),
    "checkpoints info": (("m.safetensors",), True),
    "checkpoints pull": ((NAME,), False),
    "checkpoints convert": (("m.safetensors", f"{NAME}.safetensors"), False),
    "checkpoints average": (("m.safetensors", "m.safetensors", "-o", f"{NAME}.safetensors"), False),
    "checkpoints calibrate": ((NAME, "-c", NAME), False),
    "checkpoints export": ((f"{NAME}.onnx", "-c", NAME), False),
}


def commands() -> list[str]:
    """All commands of the program, also those of a group."""
    group = typer.main.get_command(app)
    found = []
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        below = getattr(command, "commands", None)
        found += [name] if below is None else [f"{name} {each}" for each in below]
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording, a table and a checkpoint."""
    folder = tmp_path_factory.mktemp("made")
    torch.manual_seed(1)
    config = HTSATConfig(classes=2, embed_dim=8, depths=(1, 1, 1, 1), heads=(1, 1, 1, 1))
    save_checkpoint(folder / "m.safetensors", HTSAT(config, (HOSTILE, "Rain")))
    sound = 0.1 * np.random.default_rng(1).normal(size=3 * RATE)
    with (folder / NAME).open("wb") as file:
        soundfile.write(file, sound, RATE, format="WAV")
    with (folder / "b.wav").open("wb") as file:
        soundfile.write(file, sound[:RATE], RATE, format="WAV")
    write_events(
        folder / "r.tsv", {NAME: [Event(0.5, 1.5, HOSTILE)], "b.wav": [Event(0, 0.5, HOSTILE)]}, "tsv"
    )
    return folder


@pytest.fixture
def on_terminal(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., tuple[int, str]]]:
    """Run `htsat-sed ...` on a terminal; its exit code, and what the terminal got."""
    for file in made.iterdir():
        (tmp_path / file.name).symlink_to(file)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HTSAT_SED_HOME", str(tmp_path / "home"))
    controller, terminal = pty.openpty()
    got: list[bytes] = []

    def listen() -> None:
        try:
            while block := os.read(controller, 1 << 16):
                got.append(block)
        except OSError:
            pass  # the terminal is closed

    def call(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["htsat-sed", *arguments])
        with os.fdopen(terminal, "w", encoding="utf-8", errors="backslashreplace") as screen:
            monkeypatch.setattr(sys, "stdout", screen)
            monkeypatch.setattr(sys, "stderr", screen)
            with pytest.raises(SystemExit) as stopped:
                main()
            monkeypatch.undo()
        listener.join()
        return int(stopped.value.code or 0), b"".join(got).decode()

    listener = threading.Thread(target=listen)
    listener.start()
    yield call
    os.close(controller)


@pytest.mark.parametrize("command", commands())
def test_labels_and_names_are_text(command: str, on_terminal: Callable[..., tuple[int, str]]) -> None:
    arguments, label = COMMANDS.get(command, ((NAME, "-c", "m.safetensors"), False))
    code, shown = on_terminal(*command.split(), *arguments)
    assert code in (0, 1, 2), shown
    assert not [each for each in SEQUENCES if each in shown], shown
    if label:
        assert code == 0, shown
        assert SHOWN[:20] in shown, shown
