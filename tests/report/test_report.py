"""What a page is made of, and the command that makes it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from pages_made import CONFIG, LABELS, TOKEN, random_scores, shown, write_page
from PIL import Image

from htsat_sed.annotations import read_presence_maps
from htsat_sed.annotations.score_files import write_score_file
from htsat_sed.audio import Window
from htsat_sed.audio.opus import OpusEncoder
from htsat_sed.detection.events import PostProcessing
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.report.page import rule_values
from htsat_sed.report.sketch import BANDS, QUIETEST, TILE, Sketch, stretches

EXAMPLE = Path(__file__).parents[2] / "examples" / "home.flac"


def tone(hertz: float, seconds: float, rate: int = CONFIG.sample_rate) -> np.ndarray:
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate).astype(np.float32)


def decoded(mp4: bytes) -> np.ndarray:
    with av.open(io.BytesIO(mp4)) as container:
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


def data_of(path: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The data and the parts of a page."""
    text = path.read_text(encoding="utf-8")
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', text)
    parts = re.findall(r'<script type="application/octet-stream" id="(part\d+)">(.*?)</script>', text)
    return json.loads(data), {name: base64.b64decode(part) for name, part in parts}


def test_opus_keeps_length_and_pitch() -> None:
    encoder = OpusEncoder(32_000, 24_000)
    sound = 0.5 * tone(1000.0, 3.0)
    for first in range(0, len(sound), 7000):
        encoder.add(sound[first : first + 7000])
    encoder.add(sound[:0], last=True)
    heard = decoded(encoder.file())
    assert len(heard) / 48_000 == pytest.approx(3.0, abs=0.07)
    spectrum = np.abs(np.fft.rfft(heard[10_000:58_000]))
    assert spectrum.argmax() == pytest.approx(1000, abs=2)
    part = decoded(encoder.file([(0, 10), (20, 30)]))
    assert len(part) / 48_000 == pytest.approx(1.2, abs=0.02)


def test_a_tone_is_where_its_frequency_is() -> None:
    """One of full scale is as bright as can be, in the band of its frequency alone."""
    sketch = Sketch(CONFIG, seconds=4.0, bit_rate=None)
    samples = tone(1000.0, 4.0)
    for _ in sketch.through(iter([Window(0, samples[:50_000]), Window(50_000, samples[50_000:])])):
        pass
    (level,) = sketch.levels()
    (tile,) = level.tiles
    pixels = np.asarray(Image.open(io.BytesIO(tile)).convert("L"))
    assert pixels.shape == (BANDS, 200)
    column = pixels[:, 100]
    # Mel of 1 kHz is 15; the bank reaches from 50 Hz to 14 kHz, 0.75 to 53.4.
    row = BANDS - 1 - (15.0 - 0.75) / (53.4 - 0.75) * BANDS
    assert column.argmax() == pytest.approx(row, abs=2)
    assert column.max() > 245
    assert np.median(column) < 255 * (QUIETEST - 60.0) / QUIETEST


def test_overlapping_windows_are_taken_once() -> None:
    samples = np.random.default_rng(0).normal(size=96_000).astype(np.float32) * 0.1
    once = Sketch(CONFIG, seconds=3.0, bit_rate=None)
    twice = Sketch(CONFIG, seconds=3.0, bit_rate=None)
    list(once.through(iter([Window(0, samples)])))
    list(twice.through(iter([Window(0, samples[:64_000]), Window(32_000, samples[32_000:])])))
    assert once.levels() == twice.levels()
    np.testing.assert_array_equal(once.peaks(), twice.peaks())


def test_long_recordings_have_coarser_levels() -> None:
    sketch = Sketch(CONFIG, seconds=100.0, bit_rate=None)
    list(sketch.through(iter([Window(0, np.zeros(100 * CONFIG.sample_rate, np.float32))])))
    fine, coarse = sketch.levels()
    assert (len(fine.tiles), len(coarse.tiles)) == (-(-5000 // TILE), 1)
    assert coarse.seconds == 8 * fine.seconds
    assert sketch.loudness()[0] == -QUIETEST


def test_stretches_are_padded_joined_and_cut() -> None:
    # Packets of 0.06 s: 1 to 2 s with 0.5 s around is 0.5 to 2.5 s, packets 8 to 42.
    assert stretches([(1.0, 2.0)], duration=60.0, padding=0.5, longest=9.0) == [(8, 42)]
    assert stretches([(3.0, 4.0), (1.0, 2.0)], duration=60.0, padding=0.5, longest=9.0) == [(8, 75)]
    assert stretches([(1.0, 50.0)], duration=60.0, padding=0.0, longest=3.0) == [(16, 67)]
    assert stretches([(59.0, 60.0)], duration=60.0, padding=5.0, longest=3.0) == [(900, 1000)]


def test_rules_for_the_script() -> None:
    values = rule_values(("Dog",), PostProcessing(median_filter=0.9, step_filter=1.3), TOKEN)[0]
    assert (values["median"], values["side"], values["threshold_low"]) == (3, 2, None)


def test_policy_names_the_script_and_the_style(tmp_path: Path) -> None:
    text = write_page(tmp_path / "a.html", shown("a.wav", random_scores(20, 5, 0))).read_text("utf-8")
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', text)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
    for name, content in (("script-src", script), ("style-src", style)):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert "http" not in policy


def test_sound_fits_the_limit(tmp_path: Path) -> None:
    scores = np.zeros((400, len(LABELS)), np.float32)
    scores[20:30, 0] = scores[200:390, 1] = 0.9  # one short event, and one of a minute
    recording = shown("a.wav", scores)
    whole = sum(map(len, recording.sketch.opus.packets))  # type: ignore[union-attr]
    data, _ = data_of(write_page(tmp_path / "whole.html", recording))
    assert data["recordings"][0]["audio"]["stretches"] == [[0.0, 0.0, pytest.approx(125.0, abs=0.1)]]
    data, parts = data_of(write_page(tmp_path / "some.html", recording, limit=whole / 3))
    audio = data["recordings"][0]["audio"]
    assert [start for start, _, _ in audio["stretches"]] == [
        pytest.approx(4.25, abs=0.1),
        pytest.approx(60.5, abs=0.1),
    ]
    assert len(parts[audio["part"]]) < whole / 2
    data, _ = data_of(write_page(tmp_path / "none.html", recording, audio="none"))
    assert data["recordings"][0]["audio"] is None


def test_same_recordings_give_the_same_page(tmp_path: Path) -> None:
    pages = [write_page(tmp_path / name, shown("a.wav", random_scores(30, 5, 0))) for name in ("a", "b")]
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_report_of_the_example(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    out = tmp_path / "new" / "home.html"
    code, shown_, err = run("report", EXAMPLE, "-o", out)
    assert (code, shown_) == (0, "")
    assert f"wrote {out}, 0.2 MB" in err
    data, _ = data_of(out)
    assert [each["name"] for each in data["recordings"]] == ["home.flac"]
    assert data["recordings"][0]["duration"] == 16.0
    out.write_text("edited")
    assert run("report", EXAMPLE, "-o", out)[0] == 2
    assert out.read_text() == "edited"


def test_clock_times_are_of_the_given_zone(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    recording, out = tmp_path / "20260512_023000Z.flac", tmp_path / "page.html"
    recording.write_bytes(EXAMPLE.read_bytes())
    for options, begins in (
        ((), "2026-05-12T02:30:00.000+00:00"),
        (("--timezone", "Europe/Berlin"), "2026-05-12T04:30:00.000+02:00"),
    ):
        assert run("report", recording, "-o", out, "--audio", "none", *options)[0] == 0
        assert data_of(out)[0]["recordings"][0]["begins"] == begins
    assert run("report", recording, "-o", out, "--timezone", "Nowhere")[0] == 2


@pytest.mark.parametrize("kind", ["maps", "score files"])
def test_kept_scores_give_the_same_page(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path, kind: str
) -> None:
    maps = tmp_path / "maps"
    assert run("detect", EXAMPLE, "--scores", maps, "-o", tmp_path / "a.tsv")[0] == 0
    if kind == "score files":
        ((name, presence_map),) = read_presence_maps(maps)
        maps = tmp_path / "files"
        write_score_file(maps, name, presence_map)
    pages = [tmp_path / "one.html", tmp_path / "other.html"]
    assert run("report", EXAMPLE, "-o", pages[0])[0] == 0
    assert run("report", EXAMPLE, "-o", pages[1], "--scores", maps)[0] == 0
    assert pages[0].read_bytes() == pages[1].read_bytes()


def test_scores_that_do_not_fit_are_refused(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    other = PresenceMap(np.zeros((52, 1), np.float32), ("Dog",), TOKEN, 16.0)
    write_score_file(tmp_path / "classes", "home.flac", other)
    code, _, err = run("report", EXAMPLE, "-o", tmp_path / "a.html", "--scores", tmp_path / "classes")
    assert (code, (tmp_path / "a.html").exists()) == (1, False)
    assert "home.flac have other classes than the checkpoint" in err
    write_score_file(tmp_path / "others", "street.flac", other)
    code, _, err = run("report", EXAMPLE, "-o", tmp_path / "a.html", "--scores", tmp_path / "others")
    assert (code, "has no scores for home.flac" in err) == (1, True)


@pytest.mark.flaky(reruns=2)
def test_report_of_a_folder(
    run: Callable[..., tuple[int, str, str]], opened: Callable[[Path], Any], tmp_path: Path
) -> None:
    for place in ("day/a.flac", "b c.flac"):
        (tmp_path / "in" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / place).write_bytes(EXAMPLE.read_bytes())
    (tmp_path / "in" / "broken.wav").write_bytes(b"RIFF")
    code, _, err = run("report", tmp_path / "in", "-o", tmp_path / "out", "--audio", "link")
    assert code == 1
    assert "broken.wav" in err
    assert {path.name for path in (tmp_path / "out").glob("**/*.html")} == {
        "index.html",
        "a.flac.html",
        "b c.flac.html",
    }
    page = opened(tmp_path / "out" / "index.html")
    links = page.eval_on_selector_all("td a", "all => all.map(one => one.textContent)")
    assert links == ["b c.flac", "day/a.flac"]
    page.click("#classes button:has-text('Rain')")
    assert page.inner_text("tbody tr:first-child td:nth-child(3)") == "1"
    page.click("td a >> nth=1")
    page.wait_for_selector("html[data-ready]", state="attached")
    assert page.inner_text("#name") == "day/a.flac"
    page.keyboard.press("n")
    for _ in range(300):
        if page.inner_text("#clock") > "0:01.8":
            break
        page.wait_for_timeout(30)
    assert page.inner_text("#clock") > "0:01.8"  # it plays the recording itself


@pytest.mark.parametrize("arguments", [["-o", "report.wav"], ["--audio", "loud"], ["--bit-rate", "1"]])
def test_wrong_use(run: Callable[..., tuple[int, str, str]], arguments: list[str]) -> None:
    assert run("report", EXAMPLE, *arguments)[0] == 2
