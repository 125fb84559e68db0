"""What reads files that may be hostile, each with whole files to start from and with what must hold of its answer.

A reader either answers or raises one of the package's own errors, a single line that names the file. It runs in
a process of its own (`worker.py`).
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fuzz.mutate import damage, damage_safetensors, damage_zip

from htsat_sed.detection.events import Event

RATE = 32_000


@dataclass(frozen=True)
class Reader:
    """One kind of file.

    Attributes:
        suffix: of the files, which decides how some are read.
        read: reads a file and asserts what must hold of the answer.
        wholes: makes undamaged files, as bytes, in a folder that it may use.
        damage: changes a file.
    """

    suffix: str
    read: Callable[[Path], object]
    wholes: Callable[[Path], list[bytes]]
    damage: Callable[..., bytes] = damage


def check_events(table: Mapping[str, Iterable[Event]]) -> None:
    """Times are finite and in order, labels and names are not empty."""
    for name, events in table.items():
        assert name, "a recording without a name"
        for event in events:
            assert 0 <= event.onset <= event.offset < math.inf, event
            assert event.label.strip(), event
            assert event.score is None or 0 <= event.score <= 1, event


# Recordings


def read_recording(path: Path) -> None:
    from htsat_sed.audio import open_recording

    ends = []
    for _ in range(2):  # the same bytes give the same sound
        length, loudness = 0, 0.0
        with open_recording(path, RATE) as stream:
            for samples in stream.blocks():
                assert np.isfinite(samples).all(), "samples that are no sound"
                length, loudness = length + len(samples), loudness + float(np.abs(samples).sum())
        ends.append((length, loudness))
    assert ends[0] == ends[1], f"two readings differ: {ends}"


def recordings(folder: Path) -> list[bytes]:
    import av
    import soundfile

    time = np.arange(RATE // 8) / RATE
    stereo = np.stack([np.sin(2 * np.pi * 440 * time), np.sin(2 * np.pi * 550 * time)], axis=1) * 0.3
    made = []
    kinds = [("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAVEX", "PCM_24"), ("AIFF", "PCM_16"), ("AU", "PCM_16")]
    kinds += [("W64", "PCM_16"), ("RF64", "PCM_16"), ("CAF", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")]
    kinds += [("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III")]
    for container, subtype in kinds:
        file = io.BytesIO()
        rate = 48_000 if subtype == "OPUS" else RATE
        soundfile.write(file, stereo, rate, format=container, subtype=subtype)
        made.append(file.getvalue())
    coded = (
        ("mp4", "aac"),
        ("matroska", "flac"),
        ("webm", "libopus"),
        ("mpegts", "mp2"),
        ("avi", "pcm_s16le"),
    )
    for container, codec in coded:
        path = folder / f"seed.{container}"
        with av.open(str(path), "w", format=container) as output:
            track = output.add_stream(codec, rate=48_000, layout="stereo")
            frame = av.AudioFrame.from_ndarray(stereo.astype("f4").T.copy(), "fltp", "stereo")
            frame.sample_rate, frame.pts = 48_000, 0
            resampler = av.AudioResampler(track.format.name, frame_size=track.frame_size or 1024)
            for piece in [*resampler.resample(frame), *resampler.resample(None)]:
                output.mux(track.encode(piece))
            output.mux(track.encode(None))
        made.append(path.read_bytes())
    made.append(b"ffconcat version 1.0\nfile seed.mp4\n")
    made.append(b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nseed.mpegts\n#EXT-X-ENDLIST\n")
    made.append(b'<?xml version="1.0"?><MPD type="static"><Period><AdaptationSet/></Period></MPD>')
    made.append(b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n")
    return made


# Models


def tiny_config() -> Any:
    from htsat_sed.model.htsat import HTSATConfig

    return HTSATConfig(classes=3, embed_dim=8, depths=(1, 1, 1, 1), heads=(1, 1, 1, 1))


def read_checkpoint(path: Path) -> None:
    import torch

    from htsat_sed.model.checkpoint import load_checkpoint

    model = load_checkpoint(path)
    noise = torch.linspace(-0.5, 0.5, model.config.window_samples).sin()[None]
    with torch.inference_mode():
        output = model(noise)
    assert torch.isfinite(output.presence_logits).all(), "a model that computes no numbers"
    assert len(set(model.labels)) == len(model.labels)
    assert all(label.strip() for label in model.labels)


def own_checkpoints(folder: Path) -> list[bytes]:
    from htsat_sed.model.checkpoint import save_checkpoint
    from htsat_sed.model.htsat import HTSAT

    path = folder / "seed.safetensors"
    save_checkpoint(path, HTSAT(tiny_config(), ("Dog", "Cat", "Rain")))
    return [path.read_bytes()]


def official_checkpoints(folder: Path) -> list[bytes]:
    from rule_made import official_state, write_lightning

    path = folder / "seed.ckpt"
    write_lightning(path, official_state(tiny_config(), seed=1))
    return [path.read_bytes()]


# Presence maps


def read_map(path: Path) -> None:
    from htsat_sed.annotations import read_metadata, read_presence_map

    presence_map = read_presence_map(path)
    read_metadata(path)
    scores = presence_map.scores
    assert scores.ndim == 2
    assert scores.shape[1] == len(presence_map.labels)
    assert ((scores >= 0) & (scores <= 1)).all(), "scores out of range"
    assert math.isfinite(presence_map.duration)
    assert presence_map.token_seconds > 0


def maps(folder: Path) -> list[bytes]:
    from htsat_sed.annotations import write_presence_map
    from htsat_sed.detection.presence import PresenceMap

    scores = np.linspace(0, 1, 40, dtype=np.float32).reshape(20, 2)
    path = folder / "seed.npz"
    write_presence_map(path, PresenceMap(scores, ("Dog", "Rain"), 0.3125, 6.25), filename="yard.wav")
    return [path.read_bytes()]


# Label files


def read_labels_of(name: str) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        from htsat_sed.annotations import FORMATS

        check_events(FORMATS[name].read(path))

    return read


def label_files(name: str) -> Callable[[Path], list[bytes]]:
    def make(folder: Path) -> list[bytes]:
        from htsat_sed.annotations import FORMATS, write_events

        form = FORMATS[name]
        events = [
            Event(0.5, 2.25, "Dog", 0.75),
            Event(1.0, 4.0, "Baby cry, infant cry", 0.5),
            Event(5, 6, "é", 1.0),
        ]
        table = {"yard.wav": events, "street.wav": []} if form.shared else {"yard.wav": events}
        target = folder / f"labels-{name}{form.suffix}" if form.shared else folder / f"labels-{name}"
        write_events(target, table, name, durations={"yard.wav": 10.0, "street.wav": 5.0})
        files = [target] if form.shared else [each for each in target.rglob("*") if each.is_file()]
        return [each.read_bytes() for each in files]

    return make


def read_tag_table(path: Path) -> None:
    from htsat_sed.annotations import read_tags

    for scores in read_tags(path).values():
        assert all(math.isfinite(score) for score in scores.values())


def read_weak(path: Path) -> None:
    from htsat_sed.annotations import read_weak_labels

    assert all(label.strip() for labels in read_weak_labels(path).values() for label in labels)


def read_clip_durations(path: Path) -> None:
    from htsat_sed.annotations import read_durations

    assert all(math.isfinite(each) and each >= 0 for each in read_durations(path).values())


# Settings


def read_rules(path: Path) -> None:
    from htsat_sed.detection.events import PostProcessing, read_post_processing

    PostProcessing().override(read_post_processing(path))


def read_training_recipe(path: Path) -> None:
    from htsat_sed.training.recipe import read_recipe

    read_recipe(path)


def read_class_map(path: Path) -> None:
    from htsat_sed.labels import class_map

    assert class_map(path).groups


def read_label_list(path: Path) -> None:
    from htsat_sed.labels import read_labels

    labels = read_labels(path)
    assert labels
    assert len(set(labels)) == len(labels)


# Journals

SETTINGS = {"threshold": 0.5}
NAMES = tuple(f"{i}.wav" for i in range(6))


def journal_result(name: str) -> list[list[Any]]:
    """The result that a whole journal holds for a recording."""
    onset = 0.3125 * int(name[0])
    return [[onset, onset + 1.25, "Dog", 0.75]]


def read_journal(path: Path) -> None:
    from htsat_sed.runs.journal import Journal

    whole = path.read_bytes()
    with Journal(path, SETTINGS) as journal:
        for name in NAMES:
            if name in journal:
                found = journal.result(name)
                assert found == journal_result(name), f"{name}: {found} was {journal_result(name)}"
    assert re.match(rb"\{", whole) or not whole.strip(b"\0"), "something else was taken for a journal"


def journals(folder: Path) -> list[bytes]:
    from htsat_sed.runs.journal import Journal, Stamp

    path = folder / "seed.journal"
    with Journal(path, SETTINGS) as journal:
        for i, name in enumerate(NAMES):
            journal.add(
                name, Stamp(1000 + i, 17_000_000 + i), journal_result(name), "truncated" if i == 3 else None
            )
    return [path.read_bytes()]


def texts(*wholes: str) -> Callable[[Path], list[bytes]]:
    return lambda _: [whole.encode() for whole in wholes]


FORMATS = (
    *("tsv", "csv", "jsonl", "audacity", "raven", "textgrid", "rttm", "webvtt", "parquet", "raven-folder"),
    *("kaleidoscope", "elan", "label-studio", "sonic-visualiser", "crowsetta", "audioset"),
)
SUFFIXES = {"audacity": ".txt", "raven": ".selections.txt", "textgrid": ".TextGrid", "webvtt": ".vtt"}

READERS: dict[str, Reader] = {
    "recording": Reader(".wav", read_recording, recordings),
    "checkpoint": Reader(".safetensors", read_checkpoint, own_checkpoints, damage_safetensors),
    "official": Reader(".ckpt", read_checkpoint, official_checkpoints, damage_zip),
    "map": Reader(".npz", read_map, maps, damage_zip),
    "journal": Reader(".journal", read_journal, journals),
    **{
        f"labels-{name}": Reader(SUFFIXES.get(name, f".{name}"), read_labels_of(name), label_files(name))
        for name in FORMATS
    },
    "tags": Reader(
        ".csv",
        read_tag_table,
        texts("filename,event_label,score\nyard.wav,Dog,0.5\n", "filename,Dog,Rain\nyard.wav,0.5,0.25\n"),
    ),
    "weak": Reader(".tsv", read_weak, texts("filename\tevent_labels\nyard.wav\tDog,Rain\nstreet.wav\t\n")),
    "durations": Reader(
        ".tsv", read_clip_durations, texts("filename\tduration\nyard.wav\t10.0\nstreet.wav\t5\n")
    ),
    "post-processing": Reader(
        ".toml",
        read_rules,
        texts("threshold = 0.4\nmedian_filter = 0.9\nmin_gap = 0.5\n[classes.Dog]\nthreshold = 0.7\n"),
    ),
    "recipe": Reader(
        ".toml",
        read_training_recipe,
        texts(
            'epochs = 3\nbatch_size = 16\n[[data]]\nkind = "clips"\nfolds = [1, 2]\n[model]\nembed_dim = 48\n'
        ),
    ),
    "class-map": Reader(
        ".toml",
        read_class_map,
        texts('Animals = ["Dog", "Cat"]\nWater = ["Rain"]\n', 'Pet = ["Dog"]\n[thresholds]\nPet = 0.4\n'),
    ),
    "label-list": Reader(
        ".txt", read_label_list, texts("Dog\nCat\nRain\n", "index,mid,display_name\n0,/m/1,Dog\n")
    ),
}
