"""Tables to clips, clips to windows, windows to batches."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from clips_made import RATE, write

from htsat_sed.errors import AnnotationError, AudioError
from htsat_sed.training import fit as fitting
from htsat_sed.training.batches import Batch, Batches, Deal, fits_shared_memory, plan
from htsat_sed.training.data import read_clips
from htsat_sed.training.examples import ClipSeries, ExampleShape
from htsat_sed.training.recipe import DataRecipe


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


def test_names_and_labels_that_look_the_same_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio/cafe\u0301.wav").touch()
    for kind, text in (
        ("weak", "filename\tevent_labels\ncaf\u00e9.wav\tcafe\u0301 \n"),
        ("strong", "filename\tonset\toffset\tevent_label\ncaf\u00e9.wav \t0\t1\tcafe\u0301 \n"),
        ("clips", "filename\tlabel\tfold\tonset\toffset\ncaf\u00e9.wav \tcafe\u0301 \t1\t0\t1\n"),
        ("esc50", "filename,fold,category\ncaf\u00e9.wav ,1,cafe\u0301 \n"),
    ):
        (tmp_path / "table").write_text(text)
        (clip,) = read_clips(DataRecipe(kind=kind, table="table"), tmp_path, fold_count=4)
        assert clip.path == tmp_path / "audio/cafe\u0301.wav"
        assert clip.labels == {"caf\u00e9"}


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
        (
            "clips",
            "filename\tlabel\tfold\tonset\toffset\na.wav\tDog\tx\t0\t1\n",
            "line 2: wanted a number as fold",
        ),
        (
            "clips",
            "filename\tlabel\tfold\tonset\toffset\na.wav\tDog\t1\t0\t1_0\n",
            "line 2: offset is not a number",
        ),
        ("esc50", "filename,fold,category\na.wav,\u0661,dog\n", "line 2: wanted a number as fold"),
        ("clips", "filename\tlabel\tfold\tonset\toffset\na.wav\tDog\t1\t2\t1\n", "line 2: wanted 0 <= onset"),
        ("esc50", "filename,fold,category\na.wav,,dog\n", "line 2: wanted a number as fold"),
        ("audioset", "x, 0, 10, /m/none\n", "line 1: /m/none is not an AudioSet code"),
        ("audioset", "x, 0\n", "line 1: wanted video, start, end and codes"),
        ("negatives", "filename\tevent_labels\tfold\na.wav\t\tx\n", "line 2: wanted a whole number as fold"),
        ("negatives", "filename\tevent_labels\na.wav\t\na.wav\tDog\n", "line 3: a.wav already has a row"),
        ("weak", "filename\tevent_labels\nnone.wav\tDog\n", "none of its 1 recordings is below"),
    ],
)
def test_bad_tables(tmp_path: Path, kind: str, text: str, message: str) -> None:
    (tmp_path / "table").write_text(text)
    (tmp_path / "audio").mkdir()
    with pytest.raises(AnnotationError, match=message):
        read(DataRecipe(kind=kind, table="table"), tmp_path)  # type: ignore[arg-type]


def test_folds_that_a_table_lacks(tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    (tmp_path / "clips.tsv").write_text(
        "filename\tlabel\tfold\tonset\toffset\na.wav\tDog\t2\t0\t1\nb.wav\tDog\t1\t0\t1\n"
    )
    with pytest.raises(
        AnnotationError, match=r"clips\.tsv: wanted recordings of folds 9, it has folds 1, 2$"
    ):
        read(DataRecipe(kind="clips", folds=(9,)), tmp_path)
    (tmp_path / "weak.tsv").write_text("filename\tevent_labels\na.wav\tDog\n")
    with pytest.raises(AnnotationError, match=r"weak\.tsv: wanted recordings of folds 1, it has no folds$"):
        read(DataRecipe(kind="weak", table="weak.tsv", folds=(1,)), tmp_path)


WINDOW = ExampleShape(sample_rate=RATE, samples=64_000, tokens=32, labels=("High", "Low"))


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


def test_negatives_hold_what_is_present_and_leave_open_what_is_possible(data: Path) -> None:
    (data / "negatives.tsv").write_text(
        "filename\tevent_labels\tpresent_labels\tfold\n"
        "0.wav\t\t\t1\n1.wav\tLow|High\t\t1\n2.wav\tLow\tHigh\t1\n3.wav\t\t\t2\n"
    )
    part = DataRecipe(kind="negatives", table="negatives.tsv", folds=(1,))
    series = ClipSeries(read_clips(part, data, fold_count=4), WINDOW, seed=0, random=False)
    none, either, high = (series[number] for number in range(3))
    assert len(series) == 3
    assert none.events == either.events == ()
    assert not none.tokens.any()
    assert [example.unknown.tolist() for example in (none, either, high)] == [
        [False, False],
        [True, True],
        [False, True],
    ]
    assert high.clip.tolist() == [1.0, 0.0]
    assert high.tokens[:, 0].tolist() == [1.0] * 16 + [0.0] * 16  # 1 s of 2, then padding


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
    firsts = [float(balanced[number].clip[0]) for number in range(30)]
    assert [sum(firsts[i : i + 2]) for i in range(0, 30, 2)] == [1.0] * 15  # each class once a pass
    assert 0 < sum(firsts[::2]) < 15  # in a new order
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


def test_batches_go_through_shared_memory_only_where_it_has_room(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    assert fits_shared_memory(free // 100, readers=4, memory=tmp_path)  # 5 batches each, and as much again
    assert not fits_shared_memory(free // 20, readers=4, memory=tmp_path)
    assert not fits_shared_memory(1, readers=1, memory=tmp_path / "none")
