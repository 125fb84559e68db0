"""Pages of long recordings: size, processor time beside detect, first paint, frames a second.

    python bench/report.py [--audio FOLDER] [--minutes 10 120]

Recordings are clips below the folder, one after the other in random order; without a folder, the example.
The page of two hours is panned in a view of a minute, and zoomed in and out a little around the whole
recording, which draws all of it in every frame. Needs playwright and a Chromium on the path.
"""

from __future__ import annotations

import argparse
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from playwright.sync_api import sync_playwright

from htsat_sed.audio import AUDIO_SUFFIXES, read

RATE = 32_000
EXAMPLE = Path(__file__).parent.parent / "examples" / "home.flac"

MOVE = """([seconds, zoom]) => new Promise(done => {
    const canvas = document.querySelector('#spectrogram');
    const box = canvas.getBoundingClientRect();
    const begin = performance.now();
    const times = [];
    let direction = 1;
    const frame = now => {
        times.push(now);
        if (now - begin > 1000 * seconds) { done(times); return; }
        if (times.length % (zoom ? 1 : 120) === 0) direction = -direction;
        canvas.dispatchEvent(new WheelEvent('wheel', {
            [zoom ? 'deltaY' : 'deltaX']: 40 * direction, clientX: box.left + box.width / 2, cancelable: true,
        }));
        requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
})"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--audio", type=Path)
    arguments.add_argument("--minutes", type=float, nargs="+", default=[10.0, 120.0])
    arguments.add_argument(
        "--threshold", default=[], nargs="*", help="as of detect, to have more or fewer events"
    )
    given = arguments.parse_args()
    rules = [word for value in given.threshold for word in ("--threshold", value)]
    with tempfile.TemporaryDirectory() as folder:
        for minutes in given.minutes:
            recording = Path(folder) / f"{minutes:g}min.flac"
            write(recording, given.audio, minutes * 60.0)
            measure(recording, Path(folder), rules)


def write(path: Path, folder: Path | None, seconds: float) -> None:
    """A recording of so many seconds."""
    order = random.Random(0)
    clips = (
        [EXAMPLE]
        if folder is None
        else sorted(p for p in folder.rglob("*") if p.suffix.lower() in AUDIO_SUFFIXES)
    )
    noise = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        while file.frames < seconds * RATE:
            clip = read(order.choice(clips), RATE)
            clip = np.concatenate([clip, np.zeros(order.randrange(5 * RATE), np.float32)])
            clip = (clip + 0.001 * noise.standard_normal(len(clip))).astype(np.float32)
            file.write(clip[: round(seconds * RATE) - file.frames])


def processor_time(*command: object) -> tuple[float, float]:
    """Seconds of the processor and of the clock that a command takes."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "htsat_sed", *map(str, command), "--quiet"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return spent, time.perf_counter() - start


def measure(recording: Path, folder: Path, rules: list[str]) -> None:
    page = folder / f"{recording.stem}.html"
    detected, detected_clock = processor_time(
        "detect", recording, "-o", folder / f"{recording.stem}.csv", *rules
    )
    made, made_clock = processor_time("report", recording, "-o", page, *rules)
    print(f"{recording.stem}: {page.stat().st_size / 1e6:.2f} MB")
    print(f"  processor time  detect {detected:.1f} s, report {made:.1f} s, {made / detected:.2f} times")
    print(f"  clock           detect {detected_clock:.1f} s, report {made_clock:.1f} s")
    with sync_playwright() as running:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": 1360, "height": 860})
        shown.goto(page.as_uri())
        shown.wait_for_selector("html[data-ready]", state="attached")
        paint = shown.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        ready, count = shown.evaluate("performance.now()"), shown.inner_text("#count")
        print(f"  first paint     {paint:.0f} ms; all {count} events after {ready:.0f} ms")
        session = shown.context.new_cdp_session(shown)
        session.send("Performance.enable")
        for name, zoom in (("panning a minute", False), ("zooming all of it", True)):
            if zoom:
                shown.keyboard.press("0")  # every frame then draws the whole recording
                shown.wait_for_timeout(1000)
            before = task_seconds(session)
            times = np.array(shown.evaluate(MOVE, [4.0, zoom]))
            frames = len(times) - 1
            rate = 1000.0 * frames / (times[-1] - times[0])
            busy = 1000.0 * (task_seconds(session) - before) / frames
            print(f"  {name:18}{rate:.0f} frames a second, {busy:.1f} ms of work each")
        browser.close()


def task_seconds(session: object) -> float:
    metrics = session.send("Performance.getMetrics")["metrics"]  # type: ignore[attr-defined]
    return next(each["value"] for each in metrics if each["name"] == "TaskDuration")


if __name__ == "__main__":
    main()
