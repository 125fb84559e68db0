"""Pictures of recordings, by what the figure holds: axes, ticks, bars and scores, not pixels."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from golden.reference_state import recording
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch

from htsat_sed import Event, HtsatSedError, PostProcessing, PresenceMap
from htsat_sed.model.htsat import HTSAT, HTSATConfig
from htsat_sed.pictures.files import save
from htsat_sed.pictures.recording import classes_that_matter, clock_time, draw_recording, row_seconds
from htsat_sed.pictures.spectrogram import Spectrogram, hertz_ticks, read_spectrogram, slaney_mel

TINY = HTSATConfig(classes=2, embed_dim=16, depths=(1, 1, 1, 1), heads=(1, 2, 2, 4))
RATE = 32_000
LABELS = ("Dog", "Cat", "Rain")


def presence(tokens: int, labels: tuple[str, ...] = LABELS) -> PresenceMap:
    """Scores that grow from class to class and fall with time; tokens of half a second."""
    scores = np.outer(np.linspace(1.0, 0.0, tokens), np.linspace(0.1, 0.9, len(labels))).astype(np.float32)
    return PresenceMap(scores, labels, 0.5, tokens * 0.5)


def spectrogram(seconds: float, column_seconds: float = 0.1) -> Spectrogram:
    columns = round(seconds / column_seconds)
    decibels = np.linspace(-90.0, 0.0, columns * 64, dtype=np.float32).reshape(columns, 64)
    return Spectrogram(decibels, 0.0, column_seconds, 50.0, 14_000.0)


def draw(
    seconds: float = 10.0,
    events: tuple[Event, ...] = (),
    reference: tuple[Event, ...] | None = None,
    *,
    labels: tuple[str, ...] = LABELS,
    start: float = 0.0,
    end: float | None = None,
    row: float | None = None,
    title: str = "street.wav",
    post_processing: PostProcessing | None = None,
) -> Figure:
    stop = seconds if end is None else end
    return draw_recording(
        spectrogram(seconds),
        presence(round(seconds * 2)),
        events,
        reference,
        labels=labels,
        start=start,
        end=stop,
        row=stop - start if row is None else row,
        title=title,
        post_processing=post_processing,
    )


def bars(figure: Figure, axes: int) -> list[tuple[float, float, int, str]]:
    """Onset, offset, lane and colour of the bars in some axes."""
    found = []
    for collection in figure.axes[axes].collections:
        if isinstance(collection, PolyCollection):
            colour = (
                "#" + bytes((collection.get_facecolor()[0, :3] * 255).round().astype(np.uint8)).hex().upper()
            )
            for path in collection.get_paths():
                (x0, y0), (x1, _) = path.get_extents().min, path.get_extents().max
                found.append((float(x0), float(x1), int(y0), colour))
    return sorted(found)


def areas(figure: Figure, axes: int) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Lane, scores and edges of the areas in some axes: first what is light, then what is above the threshold."""
    found = []
    for patch in figure.axes[axes].patches:
        if isinstance(patch, StepPatch):
            values, edges, floor = patch.get_data()
            found.append((int(floor), (floor - values) / 0.48, edges))
    return found


def levels(figure: Figure, axes: int) -> list[tuple[int, float]]:
    """Lane and score of the lines of thresholds in some axes."""
    found = []
    for collection in figure.axes[axes].collections:
        if isinstance(collection, LineCollection):
            for (x0, y0), (x1, _) in collection.get_segments():
                if (x0, x1) != (0, 1):  # what parts lanes
                    found.append((int(y0), round((int(y0) + 0.54 - y0) / 0.48, 6)))
    return found


def texts(ticks: list[object]) -> list[str]:
    return [tick.get_text() for tick in ticks]  # type: ignore[attr-defined]


def test_slaney_mel_by_hand() -> None:
    # 200 Hz are 3 mel below 1 kHz; above, 6.4 times the frequency is 27 mel.
    assert slaney_mel([0.0, 200.0, 1000.0]).tolist() == [0.0, 3.0, 15.0]
    assert slaney_mel(6400.0) == pytest.approx(42.0, abs=1e-12)


def test_mel_axis_agrees_with_the_mel_bank_of_the_model() -> None:
    # A band's triangle, sampled at the STFT's bins, peaks at the frequency where the axis has the band's middle.
    low, high = slaney_mel([TINY.fmin, TINY.fmax])
    middles = low + np.arange(1, 65) * (high - low) / 65
    bank = HTSAT(TINY).frontend.mel_bank.numpy()
    peaks = bank.argmax(axis=0) * RATE / TINY.n_fft
    wide = bank.max(axis=0) > 0
    bins = slaney_mel(peaks + RATE / TINY.n_fft) - slaney_mel(peaks)
    assert wide.sum() > 50
    assert np.all(np.abs(slaney_mel(peaks) - middles)[wide] <= bins[wide])


def test_mel_axis_is_in_hertz() -> None:
    axes = draw().axes[0]
    assert axes.get_ylabel() == "Hz"
    shown = texts(axes.get_yticklabels())
    assert shown == ["100", "500", "1000", "2000", "4000", "8000"]
    np.testing.assert_allclose(axes.get_yticks(), slaney_mel([float(text) for text in shown]))
    # 64 bands, whose middles are a 65th of the bank's mel range apart, from edge to edge of the image.
    low, high = slaney_mel([50.0, 14_000.0])
    half = (high - low) / 130
    np.testing.assert_allclose(axes.get_ylim(), [low + half, high - half])
    np.testing.assert_allclose(axes.images[0].get_extent(), [0.0, 10.0, low + half, high - half])


@given(st.floats(0.0, 500.0), st.floats(1_001.0, 96_000.0))
def test_hertz_ticks_lie_apart_inside_the_bank(fmin: float, fmax: float) -> None:
    ticks = hertz_ticks(fmin, fmax)
    assert ticks
    assert ticks == sorted(ticks)
    assert fmin < ticks[0]
    assert ticks[-1] < fmax
    low, high = slaney_mel([fmin, fmax])
    assert np.all(np.diff(slaney_mel(ticks)) >= 0.1 * (high - low) - 1e-9)


def test_loudest_is_white_in_every_strip() -> None:
    figure = draw(10.0, row=5.0)
    limits = [axes.images[0].get_clim() for axes in figure.axes if axes.images]
    assert limits == [(-80.0, 0.0)] * 3  # and in the overview


def test_lanes_show_scores_of_their_class() -> None:
    figure = draw(10.0, labels=("Rain", "Unicorn", "Dog"))
    axes = figure.axes[1]
    assert texts(axes.get_yticklabels()) == ["Rain", "Unicorn", "Dog"]
    assert axes.get_yticks().tolist() == [0.5, 1.5, 2.5]
    assert axes.get_ylim() == (3.0, 0.0)
    assert [text.get_text().strip() for text in axes.texts] == ["not a class of the model"]
    expected = presence(20).scores
    (rain, light, _), (_, dark, _), (dog, lights, _), (_, darks, _) = areas(figure, 1)
    assert (rain, dog) == (0, 2)
    for column, whole, above in ((2, light, dark), (0, lights, darks)):
        np.testing.assert_allclose(whole, expected[:, column], atol=1e-6)
        np.testing.assert_allclose(
            above, np.where(expected[:, column] > 0.5, expected[:, column], 0), atol=1e-6
        )


def test_thresholds_of_each_class_are_lines() -> None:
    rules = PostProcessing(threshold=0.25, classes={"Dog": {"threshold": 0.75, "threshold_low": 0.5}})
    figure = draw(10.0, labels=("Rain", "Dog"), post_processing=rules)
    assert levels(figure, 1) == [(0, 0.25), (1, 0.75), (1, 0.5)]
    assert texts(figure.legends[0].get_texts())[1] == "threshold (dotted: low)"


def test_scores_end_with_the_recording() -> None:
    cut = PresenceMap(np.ones((3, 1), np.float32), ("Dog",), 0.5, 1.2)
    figure = draw_recording(
        spectrogram(1.2), cut, [], labels=["Dog"], start=0.0, end=1.2, row=1.2, title="short.wav"
    )
    assert areas(figure, 1)[0][2].tolist() == pytest.approx([0.0, 0.5, 1.0, 1.2])


def test_a_short_sound_stays_visible_in_hours() -> None:
    scores = np.zeros((24_000, 1), np.float32)
    scores[12_345] = 0.9
    hours = PresenceMap(scores, ("Dog",), 0.5, 12_000.0)
    figure = draw_recording(
        spectrogram(12_000.0, 8.0),
        hours,
        [],
        labels=["Dog"],
        start=0.0,
        end=12_000.0,
        row=12_000.0,
        title="day",
    )
    _, columns, edges = areas(figure, 1)[0]
    assert len(columns) == 1500  # 16 tokens a column
    assert np.flatnonzero(columns > 0.1).tolist() == [12_345 // 16]
    assert edges[12_345 // 16] == 12_345 // 16 * 8.0


def test_events_and_reference_have_their_own_bars() -> None:
    events = (Event(1.0, 2.0, "Dog", 0.9), Event(3.0, 4.5, "Rain", 0.8), Event(5.0, 5.2, "Dog", 0.7))
    figure = draw(10.0, events, (Event(1.1, 2.2, "Dog"), Event(0.0, 1.0, "Bird")))
    assert bars(figure, 1) == [
        (1.0, 2.0, 0, "#0072B2"),
        (1.1, 2.2, 0, "#E69F00"),
        (3.0, 4.5, 2, "#0072B2"),
        (5.0, 5.2, 0, "#0072B2"),
    ]
    assert texts(figure.legends[0].get_texts()) == [
        "presence score",
        "threshold",
        "events",
        "reference events",
    ]
    assert texts(draw(10.0, events).legends[0].get_texts()) == ["presence score", "threshold", "events"]


def test_strips_share_one_time_scale_below_an_overview() -> None:
    figure = draw(10.0, (Event(3.5, 6.0, "Dog", 0.9), Event(8.0, 9.0, "Cat", 0.6)), row=4.0)
    overview, *lanes = [axes for axes in figure.axes if axes.get_yticklabels() and not axes.images]
    lanes = [axes for axes in lanes if axes.get_ylabel() != "dB"]
    assert overview.get_xlim() == (0.0, 10.0)
    assert texts(overview.get_yticklabels()) == ["Dog", "Cat"]
    found = bars(figure, figure.axes.index(overview))
    assert [bar[:3] for bar in found] == [(3.5, 6.0, 0), (8.0, 9.0, 1)]
    assert [axes.get_xlim() for axes in lanes] == [(0.0, 4.0), (4.0, 8.0), (8.0, 12.0)]
    # An event that crosses a border is drawn on both sides of it.
    found_in_strips = [bars(figure, figure.axes.index(axes)) for axes in lanes]
    assert [[bar[:3] for bar in strip] for strip in found_in_strips] == [
        [(3.5, 4.0, 0)],
        [(4.0, 6.0, 0)],
        [(8.0, 9.0, 0)],
    ]
    assert [axes.get_xlabel() for axes in lanes] == ["", "", "time (s)"]


def test_a_strip_has_lanes_for_what_is_heard_in_it_alone() -> None:
    scores = np.zeros((40, 3), np.float32)
    scores[12:15, 1] = 0.3  # a near miss of Cat in the second strip
    found = PresenceMap(scores, LABELS, 0.5, 20.0)
    figure = draw_recording(
        spectrogram(20.0),
        found,
        [Event(1.0, 2.0, "Dog", 0.9)],
        [Event(11.0, 12.0, "Rain")],
        labels=LABELS,
        start=0.0,
        end=20.0,
        row=5.0,
        title="long.wav",
    )
    lanes = [axes for axes in figure.axes if not axes.images and axes.get_ylabel() != "dB"]
    shown = [texts(axes.get_yticklabels()) for axes in lanes]
    assert shown == [["Dog", "Rain"], ["Dog"], ["Cat"], ["Rain"], ["no events"]]


def test_a_long_recording_with_many_classes_is_no_tower() -> None:
    labels = tuple(f"class {i}" for i in range(31))
    quiet = PresenceMap(np.zeros((1200, 31), np.float32), labels, 0.5, 600.0)
    figure = draw_recording(
        spectrogram(600.0), quiet, [], labels=labels, start=0.0, end=600.0, row=120.0, title="ten minutes"
    )
    assert figure.get_figheight() * 150 < 2200  # 3757 pixels with all lanes in all strips


def test_a_range_begins_where_it_was_asked() -> None:
    figure = draw(10.0, (Event(0.0, 2.0, "Dog"), Event(2.5, 9.0, "Cat")), start=2.0, end=3.5)
    assert figure.axes[0].get_xlim() == figure.axes[1].get_xlim() == (2.0, 3.5)
    assert [bar[:3] for bar in bars(figure, 1)] == [(2.5, 3.5, 1)]
    assert areas(figure, 1)[0][2].tolist() == [2.0, 2.5, 3.0, 3.5]
    assert texts(figure.axes[1].get_xticklabels())[::5] == ["2.0", "2.5", "3.0", "3.5"]


@pytest.mark.parametrize(
    ("seconds", "row", "first", "unit"),
    [
        (60.0, 60.0, ["0", "5", "10"], "time (s)"),
        (90.0, 90.0, ["0:00", "0:10", "0:20"], "time (min:s)"),
        (3600.0, 600.0, ["0:00", "1:00", "2:00"], "time (h:min:s)"),
    ],
)
def test_time_axis(seconds: float, row: float, first: list[str], unit: str) -> None:
    lanes = [axes for axes in draw(seconds, row=row).axes if not axes.images and axes.get_ylabel() != "dB"]
    lanes = lanes[1:] or lanes  # without the overview
    assert texts(lanes[0].get_xticklabels())[:3] == first
    assert lanes[-1].get_xlabel() == unit
    assert all(len(axes.get_xticks()) <= 16 for axes in lanes)


def test_clock_time() -> None:
    assert [clock_time(s) for s in (0.0, 59.6, 725.0, 3600.0, 37_230.0)] == [
        "0:00",
        "1:00",
        "12:05",
        "1:00:00",
        "10:20:30",
    ]
    assert (clock_time(61.25, 2), clock_time(59.96, 1)) == ("1:01.25", "1:00.0")


def test_row_seconds() -> None:
    assert [row_seconds(s) for s in (0.3, 120.0, 121.0, 360.0, 361.0, 3600.0, 3601.0, 86_400.0)] == [
        0.3,
        120.0,
        60.0,
        60.0,
        120.0,
        600.0,
        1200.0,
        21_600.0,
    ]
    assert row_seconds(10 * 86_400.0) == 2 * 86_400.0


@given(st.floats(1.0, 1e8))
def test_row_seconds_make_few_strips(seconds: float) -> None:
    assert seconds / row_seconds(seconds) <= 6.0


def test_classes_that_matter() -> None:
    scores = np.zeros((20, 6), np.float32)
    labels = ("quiet", "loud", "found", "faint", "elsewhere", "referred")
    scores[4, 1], scores[4, 2], scores[4, 3], scores[15, 4] = 0.8, 0.6, 0.09, 1.0
    heard = PresenceMap(scores, labels, 0.5, 10.0)
    events = [Event(2.0, 2.5, "found", 0.6), Event(7.5, 8.0, "elsewhere", 1.0)]
    reference = [Event(2.0, 3.0, "referred"), Event(0.0, 5.0, "Unicorn"), Event(5.0, 6.0, "faint")]
    first_half = {"start": 0.0, "end": 5.0}
    assert classes_that_matter(heard, events, reference, **first_half, most=9) == [
        "Unicorn",
        "referred",
        "found",
        "loud",
    ]
    assert classes_that_matter(heard, events, **first_half, most=9) == ["found", "loud", "faint"]
    assert classes_that_matter(heard, events, **first_half, most=1) == ["found"]


def test_labels_are_shown_as_they_are() -> None:
    odd = ("US$ and $AU", "two\nlines", "\udcff bytes", "a" * 60)
    figure = draw_recording(
        spectrogram(1.0),
        presence(2, odd),
        [],
        labels=odd,
        start=0.0,
        end=1.0,
        row=1.0,
        title="$x_1$\udc80.wav",
    )
    labels = figure.axes[1].get_yticklabels()
    assert texts(labels) == ["US$ and $AU", "two lines", "\\udcff bytes", "a" * 43 + "…"]
    assert not any(label.get_parse_math() for label in labels)
    assert figure.get_suptitle() == "$x_1$\\udc80.wav"
    figure.draw_without_rendering()


def test_labels_of_527_classes_do_not_touch() -> None:
    labels = tuple(f"class {i}" for i in range(527))
    figure = draw_recording(
        spectrogram(10.0), presence(20, labels), [], labels=labels, start=0.0, end=10.0, row=10.0, title="all"
    )
    figure.draw_without_rendering()
    extents = [label.get_window_extent() for label in figure.axes[1].get_yticklabels()]
    assert len(extents) == 527
    assert all(above.y0 > below.y1 for above, below in pairwise(extents))
    assert min(extent.x0 for extent in extents) > 0.0


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match=r"at most 400 inches, got 1000 strips of up to 3 classes"):
        draw(10.0, row=0.01)
    with pytest.raises(ValueError, match="at least one class to show, got none"):
        draw(labels=())
    with pytest.raises(ValueError, match="wanted 0 <= start < end"):
        draw(start=3.0, end=3.0)


@pytest.mark.parametrize(("suffix", "magic"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".PDF", b"%PDF")])
def test_the_same_picture_is_the_same_file(tmp_path: Path, suffix: str, magic: bytes) -> None:
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in paths:
        save(draw(events=(Event(1.0, 2.0, "Dog"),)), path)
    assert paths[0].read_bytes().startswith(magic)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_other_formats_and_places_are_refused(tmp_path: Path) -> None:
    for name in ("picture.jpg", "picture"):
        with pytest.raises(ValueError, match=r"wanted a picture .*\.png, \.svg or \.pdf, got "):
            save(draw(), tmp_path / name)
    with pytest.raises(HtsatSedError, match="cannot be written"):
        save(draw(), tmp_path / "none" / "picture.png")
    assert list(tmp_path.iterdir()) == []


def test_characters_without_glyph_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(draw(title="\U00012000.wav"), tmp_path / "cuneiform.png")
    (message,) = caplog.messages
    assert message.startswith(f"{tmp_path / 'cuneiform.png'}: Glyph 73728")


@pytest.fixture(scope="module")
def wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spectrogram") / "a.wav"
    soundfile.write(path, recording(25.0, RATE, 3), RATE, subtype="FLOAT")
    return path


def whole(path: Path) -> np.ndarray:
    samples, _ = soundfile.read(path, dtype="float32")
    return HTSAT(TINY).frontend(torch.from_numpy(samples)[None])[0].numpy()


def test_spectrogram_in_chunks_is_that_of_the_whole(wav: Path) -> None:
    found = read_spectrogram(wav, TINY, start=0.0, end=25.0, column_seconds=0.01)
    assert found.decibels.shape == (2500, 64)
    assert (found.column_seconds, found.start) == (0.01, -0.005)
    np.testing.assert_allclose(found.decibels, whole(wav)[:2500], rtol=0, atol=1e-3)


def test_spectrogram_of_a_range(wav: Path) -> None:
    found = read_spectrogram(wav, TINY, start=19.0, end=21.5, column_seconds=0.001)
    assert found.start == pytest.approx(18.995)
    np.testing.assert_allclose(found.decibels, whole(wav)[1900:2150], rtol=0, atol=1e-3)


def test_columns_are_mean_powers(wav: Path) -> None:
    found = read_spectrogram(wav, TINY, start=0.0, end=25.0, column_seconds=0.5)
    assert (found.decibels.shape, found.column_seconds) == ((50, 64), 0.5)
    power = 10 ** (whole(wav)[:2500].astype(np.float64) / 10)
    np.testing.assert_allclose(
        found.decibels, 10 * np.log10(power.reshape(50, 50, 64).mean(axis=1)), atol=1e-3
    )


@pytest.mark.parametrize("samples", [1, 100, 513, 1004 * 320, 1004 * 320 + 1, 2004 * 320])
def test_spectrogram_of_any_length_has_no_holes(tmp_path: Path, samples: int) -> None:
    path = tmp_path / "short.wav"
    soundfile.write(path, recording(21.0, RATE, 4)[:samples], RATE, subtype="FLOAT")
    found = read_spectrogram(path, TINY, start=0.0, end=samples / RATE, column_seconds=0.01)
    assert found.decibels.shape == (-(-samples // 320), 64)
    assert np.isfinite(found.decibels).all()
