"""From a page to detect: a review made by keyboard, thresholds tuned on it, and events that keep the precision."""

from __future__ import annotations

import csv
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from rule_made import by_rule

from htsat_sed.annotations import read_events
from htsat_sed.detection.detector import Detector
from htsat_sed.model.checkpoint import save_checkpoint
from htsat_sed.model.htsat import HTSAT, HTSATConfig

pytestmark = pytest.mark.flaky(reruns=2)  # a browser on a busy machine may miss a frame or a click
TINY = HTSATConfig(classes=4, embed_dim=16, depths=(1, 2, 1, 1), heads=(1, 2, 2, 4))
LABELS = ("Dog", "Cat", "Rain, light", "Speech")
RATE = 32_000


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """Four recordings of 50 s: tones whose pitch and loudness change every 1.25 s."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    for seed in range(4):
        pitch, loudness = np.random.default_rng(seed).uniform([[2.0], [-3.0]], [[4.0], [0.0]], (2, 40))
        each = lambda values: np.repeat(10.0**values, RATE * 5 // 4)  # noqa: E731
        phase = 2.0 * np.pi * np.cumsum(each(pitch)) / RATE
        soundfile.write(folder / f"{seed}.wav", np.sin(phase) * each(loudness), RATE, subtype="FLOAT")
    return folder


@pytest.fixture
def checkpoint(tmp_path: Path, recordings: Path) -> Path:
    """Weights by a rule, scaled so that presence scores of these tones spread; scores of events are calibrated."""
    model = by_rule(HTSAT(TINY, LABELS).eval(), seed=0)
    maps = Detector(model).presence_maps(sorted(recordings.iterdir()))
    scores = np.concatenate([found.scores for _, found in maps])
    low, middle, high = np.percentile(np.log(scores / (1.0 - scores)), [25, 50, 75], axis=0)
    gain = torch.from_numpy(np.minimum(100.0, 1.0 / (high - low))).float()
    head = model.tscam_conv
    with torch.no_grad():
        head.weight.mul_(gain[:, None, None, None])
        head.bias.sub_(torch.from_numpy(middle).float()).mul_(gain)
    path = tmp_path / "tiny.safetensors"
    rules = {"threshold": 0.4, "score_slope": 2.5, "score_offset": -0.5}
    save_checkpoint(path, model, post_processing=rules)
    return path


def test_a_review_in_the_page_gives_detect_its_thresholds(
    run: Callable[..., tuple[int, str, str]],
    opened: Callable[..., Any],
    tmp_path: Path,
    checkpoint: Path,
    recordings: Path,
) -> None:
    page_file, review, tuned = tmp_path / "page.html", tmp_path / "review.csv", tmp_path / "tuned.toml"
    code, _, err = run("report", recordings, "-o", page_file, "-c", checkpoint, "--audio", "none")
    assert code == 0, err
    page = opened(page_file, "class=Dog")
    total = int(page.inner_text("#count").split()[0])
    assert total > 30

    # Whoever listens finds events right that score above 0.5.
    page.keyboard.press("n")
    scores = []
    for _ in range(total):
        label = page.get_attribute("#list .item[aria-selected=true]", "aria-label")
        score = float(re.search(r"score (\d\.\d+)", label)[1])
        scores.append(score)
        page.keyboard.press("1" if score > 0.5 else "2")
        page.wait_for_timeout(50)
    assert page.inner_text("#heard-text").startswith(f"{total} of ")
    assert min(scores) < 0.4 < 0.6 < max(scores)
    page.click("#open-export")
    with page.expect_download() as download:
        page.click("[data-export=review]")
    download.value.save_as(review)

    command = ("tune", "--reviewed", review, "--precision", "0.9", "-c", checkpoint, "-o", tuned)
    code, out, _ = run(*command)
    assert code == 0
    assert "too few verdicts" in out  # the other classes
    text = tuned.read_text(encoding="utf-8")
    shown = float(re.search(r"# (\d\.\d+) in calibrated scores", text)[1])
    assert 0.3 < shown < 0.8
    (own,) = tomllib.loads(text)["classes"].values()
    assert own["threshold"] != pytest.approx(shown, abs=1e-3)

    events = tmp_path / "events.csv"
    detect = ("detect", recordings, "-c", checkpoint, "--post-processing", tuned, "-o", events)
    assert run(*detect)[0] == 0
    found = [each.score for own in read_events(events).values() for each in own if each.label == "Dog"]
    with review.open(encoding="utf-8", newline="") as file:
        judged = [row for row in csv.DictReader(file) if row["detected_label"] == "Dog"]
    kept = [row for row in judged if float(row["score"]) > shown]
    assert sorted(found) == pytest.approx(sorted(float(row["score"]) for row in kept), abs=2e-4)
    assert 0 < len(kept) < total
    right = sum(row["verdict"] == "right" for row in kept)
    assert right / len(kept) >= 0.85  # of few events, one is some per cent
