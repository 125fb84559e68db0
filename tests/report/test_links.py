"""Links from clips and counts into pages: each opens, in a browser, at the event or the hour that it names."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import numpy as np
import pytest
import soundfile
from pages_made import LABELS, shown, write_page

from htsat_sed.annotations import write_events
from htsat_sed.detection.events import Event
from htsat_sed.report.page import Listed, index

pytestmark = pytest.mark.flaky(reruns=2)  # a browser on a busy machine may miss a frame or a click
Run = Callable[..., tuple[int, str, str]]


def scores(*runs: tuple[int, int, int]) -> np.ndarray:
    """Scores of 200 tokens (62.5 s): 0.9 in the runs given as class, first token and end."""
    made = np.zeros((200, len(LABELS)), np.float32)
    for k, first, end in runs:
        made[first:end, k] = 0.9
    return made


def pages_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def follow(opened: Callable[..., Any], folder: Path, link: str) -> Any:
    """Open a link that is relative to a folder."""
    address, fragment = urldefrag(link)
    return opened((folder / unquote(address)).resolve(), fragment)


def seen(page: Any) -> str:
    page.wait_for_timeout(100)
    return page.inner_text("#list .item[aria-selected=true] b") + " " + page.inner_text("#clock")


def test_a_page_opens_at_the_stretch_of_its_address(opened: Callable[..., Any], tmp_path: Path) -> None:
    recordings = [
        shown("night/a b.wav", scores((0, 0, 4))),
        shown("c.wav", scores((0, 96, 112), (1, 96, 100))),
    ]
    path = write_page(tmp_path / "page.html", *recordings)
    page = opened(path, "recording=c.wav&class=Cat&t=30-31.25")
    assert page.inner_text("#name") == "c.wav"
    assert seen(page) == "Cat 0:30.0"
    page = opened(path, "recording=night%2Fa%20b.wav&t=40")  # no event there
    assert page.inner_text("#name") == "night/a b.wav"
    assert page.inner_text("#clock") == "0:40.0"
    assert page.locator("#list .item[aria-selected=true]").count() == 0
    page.evaluate(
        "location.hash = '#recording=c&t=30-35'"
    )  # by its name without suffix, as label tracks have it
    page.wait_for_selector("#list .item[aria-selected=true]")
    assert seen(page) == "Dog 0:30.0"
    page = opened(path, "class=Cat")
    assert page.eval_on_selector_all("#list .item b", "all => all.map(one => one.textContent)") == ["Cat"]
    page = opened(path, "recording=<b>&t=1e9-&class=%00")
    assert page.inner_text("#notice") == "This page has no recording <b>."


@pytest.mark.parametrize("report", ["pages", "report.html"])
def test_clips_link_to_their_events(
    run: Run, opened: Callable[..., Any], tmp_path: Path, report: str
) -> None:
    audio = tmp_path / "audio" / "day 1" / "ü.wav"
    audio.parent.mkdir(parents=True)
    soundfile.write(audio, np.zeros(62 * 8000), 8000)
    name = "day 1/ü.wav"
    write_events(tmp_path / "events.csv", {name: [Event(30.0, 35.0, LABELS[2], 0.9)]}, "csv")
    target = tmp_path / (report if report.endswith(".html") else f"{report}/{name}.html")
    target.parent.mkdir(parents=True, exist_ok=True)
    write_page(target, shown(name, scores((2, 96, 112), (0, 95, 112))))
    if not report.endswith(".html"):
        (tmp_path / report / "index.html").write_text("")
    command = ["segments", tmp_path / "events.csv", "-a", tmp_path / "audio", "-o", tmp_path / "clips"]
    assert run(*command, "--report", tmp_path / "nowhere")[0] == 1
    assert run(*command, "--report", tmp_path / report)[0] == 0
    first, heard = pages_of(tmp_path / "clips" / "clips.csv")
    assert (first["event_label"], heard["page"]) == (LABELS[2], "")
    assert seen(follow(opened, tmp_path / "clips", first["page"])) == f"{LABELS[2]} 0:30.0"


def test_counts_link_to_the_recordings_of_their_hour(
    run: Run, opened: Callable[..., Any], tmp_path: Path
) -> None:
    dog, cat = Event(60.0, 62.0, "Dog", 0.9), Event(1.0, 2.0, "Cat", 0.9)
    recordings = {
        "meadow/20260512_035930.wav": [cat, dog],  # the dog at 04:00:30
        "meadow/20260512_040000.wav": [cat],
        "meadow/20260513_040000.wav": [Event(5.0, 6.0, "Dog", 0.9)],
        "river/20260512_040000.wav": [dog],
    }
    begins = ["2026-05-12T03:59:30", "2026-05-12T04:00:00", "2026-05-13T04:00:00", "2026-05-12T04:00:00"]
    listed = [
        Listed(name, f"{name}.html", 300.0, events, begin, name.partition("/")[0])
        for (name, events), begin in zip(recordings.items(), begins, strict=True)
    ]
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "index.html").write_text(index(listed, title="a title", labels=("Dog", "Cat")))
    write_events(tmp_path / "events.csv", recordings, "csv")
    lengths = "filename\tduration\n" + "".join(f"{name}\t300\n" for name in recordings)
    (tmp_path / "lengths.tsv").write_text(lengths)
    command = ["summary", tmp_path / "events.csv", "--durations", tmp_path / "lengths.tsv", "--pictures", "0"]
    out = tmp_path / "season"
    assert run(*command, "-o", out, "--report", tmp_path / "lengths.tsv")[0] == 2
    assert run(*command, "-o", out, "--report", pages)[0] == 0

    def found(table: str, **cells: str) -> list[str]:
        (row,) = (each for each in pages_of(out / table) if cells.items() <= each.items())
        page = follow(opened, out, row["page"])
        links = "all => all.map(one => one.getAttribute('href'))"
        names = page.eval_on_selector_all("tbody a", links)
        assert int(row["events"]) == sum(map(int, page.locator("td.number:nth-child(4)").all_inner_texts()))
        return names

    four = {"label": "Dog", "date": "2026-05-12", "hour": "04"}
    assert found("hours.csv", site="meadow", **four) == [
        "meadow/20260512_035930.wav.html#class=Dog&t=60.00-62.00"
    ]
    assert [name[:5] for name in found("hours.csv", site="river", **four)] == ["river"]
    assert len(found("weeks.csv", site="meadow", label="Dog", week="2026-W20")) == 2
    assert len(found("days.csv", site="meadow", label="Cat", date="2026-05-12")) == 2
    assert len(found("sites.csv", site="meadow", label="Cat")) == 2
    assert len(found("hours_of_day.csv", site="meadow", label="Dog", hour="04")) == 2
    empty = [row for row in pages_of(out / "hours.csv") if row["events"] == "0"]
    assert empty
    assert all(row["page"] == "" for row in empty)
    page = opened(pages / "index.html", "class=Dog&date=2026-05-12&hour=4&site=meadow")
    assert page.inner_text("#period").startswith("meadow, 2026-05-12, 04:00 to 04:59")
    page.click("#period")
    assert page.locator("tbody tr").count() == 4


def test_the_index_lists_what_could_not_be_read(opened: Callable[..., Any], tmp_path: Path) -> None:
    listed = [Listed(f"{hour}.wav", "x", 300.0, [], f"2026-05-12T{hour}:00:00.000") for hour in ("22", "04")]
    unread = [("<i>.wav", "not an audio file"), ("\udcff.wav", "empty")]
    path = tmp_path / "index.html"
    path.write_text(
        index([*listed, Listed("a.wav", "x", 9.0, [])], title="{{data}}", labels=("Dog",), unread=unread)
    )
    page = opened(path)
    assert page.title() == "{{data}}"
    assert page.inner_text("#facts").endswith("2 not read")
    names = page.eval_on_selector_all("tbody td:first-child", "all => all.map(one => one.textContent)")
    assert names[:4] == ["04.wav", "22.wav", "a.wav", "<i>.wav"]  # by clock time, where known
    assert page.inner_text("tbody tr:nth-child(4)") == "<i>.wav\tnot read: not an audio file"
    page.fill("#least", "1")
    assert page.locator("tbody tr").count() == 0


def test_recordings_of_a_page_come_by_clock_time(
    run: Run, opened: Callable[..., Any], tmp_path: Path
) -> None:
    for name in ("a_20260512_050000.wav", "b_20260512_040000.wav", "c.wav"):
        soundfile.write(tmp_path / name, np.zeros(8000), 8000)
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    assert run("report", tmp_path, "-o", tmp_path / "page.html", "--audio", "none")[0] == 1
    page = opened(tmp_path / "page.html")
    assert page.eval_on_selector_all("#recording-list b", "all => all.map(one => one.textContent)") == [
        "b_20260512_040000.wav",
        "a_20260512_050000.wav",
        "c.wav",
    ]
    assert run("report", tmp_path, "-o", tmp_path / "pages", "--audio", "none")[0] == 1
    assert "broken.wav\tnot read: " in opened(tmp_path / "pages" / "index.html").inner_text("tbody")
