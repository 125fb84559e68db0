"""Commands killed at random moments and given again: the same files in the end, and nothing beside them.

`detect` and `tag` have tests of their own in `runs/`. These take minutes: pytest --long -m long tests/test_killed.py
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import soundfile

from htsat_sed.model.checkpoint import save_checkpoint
from htsat_sed.model.htsat import HTSAT, HTSATConfig

KILLS = 15  # of each of ten commands
RATE = 32_000
RECIPE = """
epochs = 4
epoch_examples = 8
batch_size = 2
keep = "last"
[[data]]
kind = "clips"
folds = [1, 2, 3]
mix = true
[[validation]]
kind = "clips"
folds = [4]
mix = true
[model]
embed_dim = 16
depths = [1, 1, 1, 1]
heads = [1, 2, 2, 4]
"""
# Downloads from a host on this machine: the catalogue names others.
PULL = """
import dataclasses, hashlib, sys
from pathlib import Path
from htsat_sed.model import catalogue
url, content = sys.argv[1], Path(sys.argv[2]).read_bytes()
entry = dataclasses.replace(
    catalogue.CATALOGUE[0],
    name="thing", file_name="thing.ckpt", url=url, sha256=hashlib.sha256(content).hexdigest(), size=len(content),
)
catalogue.pull(entry, pause=0.05)
"""


@dataclass(frozen=True)
class Killed:
    """A command that is killed.

    Attributes:
        command: makes the arguments of Python, given the folder of the inputs and that of the outputs.
        home: whether the output is the folder that the package keeps downloads and calibrations in.
    """

    command: Callable[[Path, Path], list[str]]
    home: bool = False


def program(*arguments: object) -> list[str]:
    return ["-m", "htsat_sed", *map(str, arguments)]


COMMANDS = {
    "convert": Killed(
        lambda given, out: program("checkpoints", "convert", given / "m.safetensors", out / "c.safetensors")
    ),
    "export": Killed(
        lambda given, out: program("checkpoints", "export", out / "m.onnx", "-c", given / "m.safetensors")
    ),
    "calibrate": Killed(
        lambda given, _: program("checkpoints", "calibrate", given / "audio", "-c", given / "m.safetensors"),
        home=True,
    ),
    "segments": Killed(
        lambda given, out: program(
            "segments", given / "events.csv", "--audio", given / "audio", "-o", out / "clips"
        )
    ),
    "soundscapes": Killed(
        lambda given, out: program(
            *("soundscapes", given / "recipe.toml", "--data", given, "-o", out / "scenes", "--count", 30)
        )
    ),
    "train": Killed(
        lambda given, out: program(
            *("train", given / "recipe.toml", "--data", given, "-o", out / "own.safetensors"),
            *("--device", "cpu", "--workers", 0),
        )
    ),
    "teach": Killed(
        lambda given, out: program(
            *("teach", given / "classes", "-o", out / "taught.safetensors", "-c", given / "m.safetensors"),
            *("--steps", 12, "--folds", 2, "--device", "cpu", "--workers", 0),
        )
    ),
    "teach a head": Killed(
        lambda given, out: program(
            *("teach", given / "classes", "-o", out / "taught.safetensors", "-c", given / "m.safetensors"),
            *("--head-only", "--folds", 2),
        )
    ),
    "merge": Killed(
        lambda given, out: program("merge", given / "shards", "-o", out / "all", "--scores", out / "maps")
    ),
    "pull": Killed(
        lambda given, _: ["-c", PULL, (given / "url").read_text(), str(given / "thing.ckpt")], home=True
    ),
}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What the commands read: recordings, clips, events, a model, a recipe, a host."""
    folder = tmp_path_factory.mktemp("given")
    (folder / "audio").mkdir()
    times = np.arange(RATE) / RATE
    rows = ["filename\tlabel\tfold\tonset\toffset"]
    events = ["filename,onset,offset,event_label,score"]
    for i in range(8):
        sound = 0.3 * np.sin(2 * np.pi * 300 * (1 + i % 2) * times)
        soundfile.write(folder / "audio" / f"{i}.wav", sound, RATE)
        label = ("Low", "High")[i % 2]
        rows.append(f"{i}.wav\t{label}\t{i // 2 + 1}\t0.1\t0.9")
        events += [f"{i}.wav,{k / 10},{k / 10 + 0.2},{label},0.5" for k in range(6)]
    (folder / "clips.tsv").write_text("\n".join(rows) + "\n")
    (folder / "events.csv").write_text("\n".join(events) + "\n")
    (folder / "recipe.toml").write_text(RECIPE)
    config = HTSATConfig(classes=2, embed_dim=16, depths=(1, 1, 1, 1), heads=(1, 2, 2, 4))
    save_checkpoint(folder / "m.safetensors", HTSAT(config, ("Low", "High")))
    for i in range(8):
        place = folder / "classes" / ("Low", "High")[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "audio" / f"{i}.wav", place)
    for number in (1, 2):
        out = folder / "shards" / str(number)
        command = program(
            "detect", folder / "audio", "-c", folder / "m.safetensors", "--shard", f"{number}/2"
        )
        command += ["-o", str(out), "-f", "csv", "-f", "raven", "--scores", str(folder / f"maps{number}")]
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
    content = bytes(range(256)) * 20_000
    (folder / "thing.ckpt").write_bytes(content)

    class Handler(BaseHTTPRequestHandler):
        """Sends a file slowly, from where it is asked to."""

        def do_GET(self) -> None:
            begin = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").removesuffix("-"))
            self.send_response(206 if begin else 200)
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(content) - begin))
            self.end_headers()
            for start in range(begin, len(content), 1 << 18):
                self.wfile.write(content[start : start + (1 << 18)])
                time.sleep(0.05)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that are killed
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        (folder / "url").write_text(f"http://127.0.0.1:{server.server_address[1]}/thing.ckpt")
        yield folder
        server.shutdown()
        thread.join()


def start(killed: Killed, given: Path, out: Path) -> subprocess.Popen[str]:
    """The command in a session of its own, so that its own processes are killed with it."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    if killed.home:
        environment["HTSAT_SED_HOME"] = str(out)
    return subprocess.Popen(
        [sys.executable, *killed.command(given, out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def contents(folder: Path) -> dict[str, str]:
    """Hashes of all files but logs, whose lines have times."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "tfevents" not in path.name
    }


@pytest.mark.long
@pytest.mark.parametrize("name", COMMANDS)
def test_killed_again_and_again_the_files_are_those_of_an_undisturbed_run(
    name: str, given: Path, tmp_path: Path
) -> None:
    killed, rng = COMMANDS[name], random.Random(name)
    undisturbed, out = tmp_path / "undisturbed", tmp_path / "out"
    undisturbed.mkdir()
    out.mkdir()
    began = time.monotonic()
    process = start(killed, given, undisturbed)
    errors = process.communicate()[1]
    assert process.returncode == 0, errors
    duration = time.monotonic() - began

    kills = 0
    while kills < KILLS:
        process, began = start(killed, given, out), time.monotonic()
        try:
            # Late rather than early: a kill amid the imports proves little.
            process.wait(timeout=rng.uniform(0.3, 1.0) * duration)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        errors = process.communicate()[1]
        if process.returncode == 0:  # it was through before the kill
            duration = min(duration, time.monotonic() - began)  # the machine may be less busy than before
            assert contents(out).keys() == contents(undisturbed).keys()
            shutil.rmtree(out)
            out.mkdir()
        else:
            assert process.returncode == -signal.SIGKILL, errors
    process = start(killed, given, out)
    errors = process.communicate()[1]
    assert process.returncode == 0, errors
    found, wanted = contents(out), contents(undisturbed)
    assert found.keys() == wanted.keys()
    # A state or an int8 graph may hold times and addresses; what a user gets is the same to the byte.
    results = [
        file for file in wanted if file.endswith((".safetensors", ".onnx", ".wav", ".csv", ".tsv", ".ckpt"))
    ]
    same = [file for file in results if Path(file).name != "last.ckpt"]
    assert {file: found[file] for file in same} == {file: wanted[file] for file in same}
