"""The page in a real browser: it plays, follows sliders as Python does, takes reviews, and lets nothing out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages_made import LABELS, TOKEN, random_scores, shown, write_page

from htsat_sed.annotations import read_events, read_heard
from htsat_sed.detection.events import Event, PostProcessing, find_events, read_post_processing
from htsat_sed.detection.presence import PresenceMap
from htsat_sed.report.page import rule_values

pytestmark = pytest.mark.flaky(reruns=2)  # a browser on a busy machine may miss a frame or a click
Opened = Callable[[Path], Any]


def one_class(tokens: int, *runs: tuple[int, int, float]) -> np.ndarray:
    """Scores of the five classes: the first is as high as said in some runs of tokens, else 0."""
    scores = np.zeros((tokens, len(LABELS)), np.float32)
    for first, end, score in runs:
        scores[first:end, 0] = score
    return scores


def until(page: Any, expression: str) -> None:
    """Wait until an expression is true; Playwright's own way needs eval, which the page forbids."""
    for _ in range(300):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(30)
    pytest.fail(f"never: {expression}")


def shows(page: Any, selector: str, text: str) -> None:
    """Wait until an element has this text: the page draws lists in the next frame."""
    for _ in range(300):
        if page.inner_text(selector) == text:
            return
        page.wait_for_timeout(30)
    assert page.inner_text(selector) == text


def rows(page: Any) -> list[str]:
    """What the list of events says, as far as it is in view."""
    return page.eval_on_selector_all("#list .item b", "nodes => nodes.map(node => node.textContent)")


def exported(page: Any, kind: str, tmp_path: Path) -> Path:
    page.click("#open-export")
    with page.expect_download() as download:
        page.click(f"[data-export={kind}]")
    target = tmp_path / download.value.suggested_filename
    download.value.save_as(target)
    page.keyboard.press("Escape")
    return target


def random_rules(rng: np.random.Generator) -> PostProcessing:
    threshold = round(float(rng.random()), 2)
    return PostProcessing(
        threshold=threshold,
        threshold_low=None if rng.random() < 0.5 else threshold * float(rng.random()),
        median_filter=float(rng.choice([0.0, 0.9, 1.5, 5.9])),
        min_event=float(rng.choice([0.0, 0.4, 1.5])),
        min_gap=float(rng.choice([0.0, 0.5, 2.0])),
        step_filter=float(rng.choice([0.0, 0.0, 1.3, 3.8])),
        merge_absolute=float(rng.choice([0.0, 0.1, 0.3])),
        merge_relative=float(rng.choice([0.0, 0.2, 0.6])),
        edge_level=float(rng.choice([0.0, 0.5, 0.9])),
        score_slope=float(rng.choice([1.0, 0.5])),
        score_offset=float(rng.choice([0.0, -1.0])),
    )


def test_rules_are_those_of_detect_on_random_maps(opened: Opened, tmp_path: Path) -> None:
    page = opened(write_page(tmp_path / "page.html", shown("a.wav", random_scores(20, 5, 0))))
    rng = np.random.default_rng(1)
    cases, wanted = [], []
    for seed in range(200):
        tokens = int(rng.integers(1, 300))
        scores = random_scores(tokens, 1, seed)
        rules = random_rules(rng)
        duration = (tokens - 0.99 * float(rng.random())) * TOKEN
        presence_map = PresenceMap(scores, ("Dog",), TOKEN, duration)
        wanted.append([[e.onset, e.offset, e.score] for e in find_events(presence_map, rules)])
        cases.append([scores[:, 0].tolist(), rule_values(("Dog",), rules, TOKEN)[0], duration])
    found = page.evaluate(
        """([cases, token]) => cases.map(([scores, rule, duration]) => Rules.findEvents(
            Rules.medianFilter(new Float32Array(scores), rule.median), rule, token, duration)
            .map(event => [event.onset, event.offset, event.score]))""",
        [cases, TOKEN],
    )
    assert sum(map(len, wanted)) > 500
    for ours, theirs in zip(wanted, found, strict=True):
        assert len(ours) == len(theirs)
        # Two implementations of exp, rounded to float32, differ in its last bit.
        np.testing.assert_allclose(theirs, ours, atol=1e-7)


def test_events_follow_sliders(opened: Opened, tmp_path: Path) -> None:
    rules = PostProcessing(threshold=0.6, threshold_low=0.3, median_filter=0.9, min_gap=0.5, edge_level=0.5)
    scores = random_scores(150, 5, 3)
    page = opened(write_page(tmp_path / "page.html", shown("a.wav", scores), post_processing=rules))
    presence_map = PresenceMap(scores, LABELS, TOKEN, 150 * TOKEN)

    def count(values: PostProcessing) -> str:
        return str(len(find_events(presence_map, values)))

    shows(page, "#count", count(rules))
    page.click("#tab-thresholds")
    page.fill("#slider1", "0.9")
    own = rules.override({"classes": {"Cat": {"threshold": 0.9}}})
    until(page, f"document.querySelector('#count').textContent === '{count(own)}'")
    assert count(own) != count(rules)
    with page.expect_download() as download:
        page.click("#save-rules")
    download.value.save_as(tmp_path / "tuned.toml")
    kept = PostProcessing().override(read_post_processing(tmp_path / "tuned.toml"))
    assert find_events(presence_map, kept) == find_events(presence_map, own)
    page.fill("#slider-1", "0.8")
    until(
        page,
        f"document.querySelector('#count').textContent === '{count(rules.override({'threshold': 0.8}))}'",
    )


def test_playback_advances_and_pauses(opened: Opened, tmp_path: Path) -> None:
    page = opened(write_page(tmp_path / "page.html", shown("a.wav", one_class(60, (10, 20, 0.9)))))
    shows(page, "#clock", "0:00.0")
    page.keyboard.press("Space")
    until(page, "document.querySelector('#clock').textContent > '0:00.3'")
    page.keyboard.press("Space")
    until(page, "document.querySelector('#play').getAttribute('aria-label') === 'Play'")
    stopped = page.inner_text("#clock")
    page.wait_for_timeout(150)
    shows(page, "#clock", stopped)
    page.keyboard.press("ArrowRight")  # a second
    page.wait_for_timeout(300)
    assert float(page.inner_text("#clock")[2:]) == pytest.approx(float(stopped[2:]) + 1.0, abs=0.11)
    page.keyboard.press("n")  # plays the event, which begins at 3.1 s
    until(page, "document.querySelector('#clock').textContent > '0:03.3'")


def test_sound_of_events_alone_is_played_where_it_belongs(opened: Opened, tmp_path: Path) -> None:
    recording = shown("a.wav", one_class(200, (30, 34, 0.9), (150, 154, 0.8)))
    page = opened(write_page(tmp_path / "page.html", recording, audio="events", padding=1.0))
    assert "around events" in page.inner_text("#facts")
    page.keyboard.press("n")
    page.keyboard.press("n")  # begins at 46.9 s
    until(page, "document.querySelector('#clock').textContent > '0:47.0'")


def test_review_by_keyboard(opened: Opened, tmp_path: Path) -> None:
    runs = [(10 * i, 10 * i + 4, 0.6 + 0.01 * i) for i in range(20)]
    path = write_page(tmp_path / "page.html", shown("night/a.wav", one_class(210, *runs), sound=False))
    page = opened(path)
    page.keyboard.press("n")
    verdicts = ["right", "wrong", "unsure", "other"] * 5
    for verdict in verdicts:
        page.keyboard.press(str(["right", "wrong", "unsure", "other"].index(verdict) + 1))
        if verdict == "other":
            page.keyboard.type("Wolf")
            page.keyboard.press("Enter")
    shows(page, "#heard-text", "20 of 20 judged")
    table = exported(page, "review", tmp_path)
    lines = table.read_text(encoding="utf-8").splitlines()
    assert lines[0] == (
        "filename,onset,offset,event_label,score,verdict,detected_onset,detected_offset,detected_label,heard"
    )
    assert lines[1] == "night/a.wav,0.000,1.250,Dog,0.6000,right,0.000,1.250,Dog,"
    assert lines[2] == "night/a.wav,,,,0.6100,wrong,3.125,4.375,Dog,"
    assert lines[3] == "night/a.wav,,,,0.6200,unsure,6.250,7.500,Dog,"
    assert lines[4] == "night/a.wav,9.375,10.625,Wolf,0.6300,other,9.375,10.625,Dog,"
    assert lines[21].startswith(
        'night/a.wav,,,,,,,,,"[[""Dog"",0,1.25],[""Dog"",3.125,4.375],[""Dog"",9.375,'
    )
    assert len(lines) == 22
    truth = read_events(table)["night/a.wav"]
    assert [e.label for e in truth] == ["Dog", "Wolf"] * 5
    heard = read_heard(table)
    assert heard is not None
    assert len(heard["night/a.wav"]) == 15

    page.reload()
    page.wait_for_selector("html[data-ready]", state="attached")
    shows(page, "#heard-text", "20 of 20 judged")
    page.keyboard.press("z")  # nothing to undo after a reload
    shows(page, "#heard-text", "20 of 20 judged")
    assert exported(page, "review", tmp_path).read_text(encoding="utf-8").splitlines() == lines


def test_verdicts_are_undone_and_taken_back(opened: Opened, tmp_path: Path) -> None:
    page = opened(write_page(tmp_path / "page.html", shown("a.wav", one_class(60, (10, 20, 0.9)))))
    page.keyboard.press("n")
    page.keyboard.press("2")
    shows(page, "#heard-text", "1 of 1 judged")
    page.keyboard.press("z")
    shows(page, "#heard-text", "0 of 1 judged")
    page.keyboard.press("1")
    page.keyboard.press("Backspace")
    shows(page, "#heard-text", "0 of 1 judged")


def test_edges_are_dragged_and_missed_events_drawn(opened: Opened, tmp_path: Path) -> None:
    page = opened(write_page(tmp_path / "page.html", shown("a.wav", one_class(64, (16, 32, 0.9)))))
    page.keyboard.press("n")
    page.keyboard.press("Escape")  # stops playing
    page.keyboard.press("0")
    page.wait_for_timeout(100)
    box = page.locator("#spectrogram").bounding_box()
    x = lambda seconds: box["x"] + box["width"] * seconds / 20.0  # noqa: E731
    page.mouse.move(x(10.0), box["y"] + 50)
    page.mouse.down()
    page.mouse.move(x(12.0), box["y"] + 50, steps=4)
    page.mouse.up()
    lanes = page.locator("#lanes").bounding_box()
    page.keyboard.press("d")
    page.mouse.move(x(15.0), lanes["y"] + 20)
    page.mouse.down()
    page.mouse.move(x(17.0), lanes["y"] + 20, steps=4)
    page.mouse.up()
    page.keyboard.press("h")
    table = exported(page, "review", tmp_path)
    first, second = read_events(table)["a.wav"]
    assert (first.onset, first.offset) == pytest.approx((5.0, 12.0), abs=0.05)
    assert (second.onset, second.offset, second.label) == (
        pytest.approx(15.0, abs=0.05),
        pytest.approx(17.0, abs=0.05),
        "Dog",
    )
    heard = read_heard(table)
    assert heard is not None
    assert Event(0.0, 20.0, "*") in heard["a.wav"]
    for kind in ("tsv", "audacity", "raven"):
        (own,) = read_events(exported(page, kind, tmp_path)).values()
        assert [(e.label, round(e.onset, 2)) for e in own] == [
            ("Dog", round(first.onset, 2)),
            ("Dog", round(second.onset, 2)),
        ]


def test_a_review_is_imported_into_a_later_page(opened: Opened, tmp_path: Path) -> None:
    scores = one_class(60, (10, 20, 0.9), (30, 40, 0.7))
    first = opened(write_page(tmp_path / "first.html", shown("a.wav", scores)))
    first.keyboard.press("n")
    first.keyboard.press("1")
    first.keyboard.press("2")
    table = exported(first, "review", tmp_path)
    later = shown("a.wav", one_class(60, (10, 19, 0.9), (30, 40, 0.8), (50, 55, 0.9)))
    page = opened(write_page(tmp_path / "later.html", later))
    page.set_input_files("#file", table)
    page.wait_for_selector("#notice:not([hidden])")
    shows(page, "#notice", f"Imported 2 verdicts from {table.name}.")
    shows(page, "#heard-text", "2 of 3 judged")
    sheet = tmp_path / "sheet.csv"  # as a spreadsheet with decimal commas saves it
    sheet.write_text(
        "filename;onset;offset;event_label;score;verdict;detected_onset;detected_offset;detected_label;heard\r\n"
        "a.wav;;;;0,9;wrong;15,625;17,188;Dog;\r\n"
    )
    page.set_input_files("#file", sheet)
    until(page, "document.querySelector('#heard-text').textContent === '3 of 3 judged'")
    sheet.write_bytes(sheet.read_text().replace("Dog", "Kuckuck, m\u00e4nnl.").encode("cp1252"))
    page.set_input_files("#file", sheet)
    until(page, "document.querySelector('#notice').textContent.includes('save it as CSV UTF-8')")
    page.set_input_files("#file", write_page(tmp_path / "other.html", later))
    until(page, "document.querySelector('#notice').textContent.includes('cannot be imported')")


def test_hostile_names_are_text(opened: Opened, tmp_path: Path) -> None:
    name = "</script><script>alert(1)</script><img src=x onerror=alert(2)>.wav"
    labels = ("<b onclick=alert(3)>bold</b>", "]]><!--", "=cmd()", "\u202egod", "x" * 300)
    scores = np.full((40, 5), 0.9, np.float32)
    reference = [Event(1.0, 2.0, "<script>alert(4)</script>")]
    recordings = [
        shown(name, scores, labels=labels, reference=reference),
        shown("b\udcff", scores, labels=labels),
    ]
    page = opened(write_page(tmp_path / "page.html", *recordings, title="</title><script>alert(5)</script>"))
    shows(page, "#name", name)
    assert page.evaluate("document.querySelectorAll('img, b[onclick]').length") == 0
    assert labels[0] in rows(page)
    page.keyboard.press("n")
    page.keyboard.press("1")
    table = exported(page, "review", tmp_path)
    events = read_events(table)
    assert set(events) == {name, "b\udcff"}
    page.goto("about:blank")


def test_ten_thousand_events_are_listed(opened: Opened, tmp_path: Path) -> None:
    scores = np.zeros((20_000, 1), np.float32)
    scores[::2] = 0.9
    recording = shown("a.wav", scores[:64], labels=("Dog",), sound=False)
    long = type(recording)("a.wav", PresenceMap(scores, ("Dog",), TOKEN, 20_000 * TOKEN), recording.sketch)
    page = opened(write_page(tmp_path / "page.html", long))
    shows(page, "#count", "10,000")
    page.evaluate("document.querySelector('#list').scrollTop = 46 * 9000")
    until(page, "document.querySelector('#event9001') !== null")
    assert page.evaluate("document.querySelectorAll('#list .item').length") < 60


def test_filters_sort_and_sample(opened: Opened, tmp_path: Path) -> None:
    runs = [(4 * i, 4 * i + 2, 0.51 + 0.004 * i) for i in range(100)]
    page = opened(write_page(tmp_path / "page.html", shown("a.wav", one_class(420, *runs), sound=False)))
    page.select_option("#sort", "high")
    shows(page, "#list .item .score", "0.91")
    page.fill("#sample", "3")
    shows(page, "#count", "14 of 100")
    page.fill("#score-from", "0.8")
    shows(page, "#count", "5 of 100")


def test_names_of_controls(opened: Opened, tmp_path: Path) -> None:
    """Every control has a name, and what is chosen is announced."""
    page = opened(write_page(tmp_path / "page.html", shown("a.wav", one_class(60, (10, 20, 0.9)))))
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select')].filter(one =>
            !one.hidden && !(one.getAttribute('aria-label') || one.textContent.trim() || one.labels?.length))
            .map(one => one.id)"""
    )
    assert unnamed == []
    page.keyboard.press("n")
    shows(page, "#live", "Dog, 0:03.1 to 0:06.3, score 0.90")
    assert page.get_attribute("#list", "aria-activedescendant") == "event0"
    assert page.get_attribute("#event0", "aria-selected") == "true"


def test_every_control_is_reached_by_keyboard_and_shows_its_focus(opened: Opened, tmp_path: Path) -> None:
    recordings = [shown(f"{name}.wav", one_class(60, (10, 20, 0.9)), sound=name == "a") for name in "ab"]
    page = opened(write_page(tmp_path / "page.html", *recordings))
    page.keyboard.press("n")
    page.keyboard.press("Escape")
    wanted = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select, [tabindex="0"]')]
            .filter(one => one.offsetParent !== null && one.tabIndex >= 0 && !one.disabled)
            .map((one, i) => { one.dataset.number = i; return i; })"""
    )
    assert len(wanted) > 25
    found = set()
    for _ in range(2 * len(wanted)):  # the browser has places of its own
        page.keyboard.press("Tab")
        number, outline = page.evaluate(
            """() => [document.activeElement.dataset.number, getComputedStyle(document.activeElement).outlineStyle]"""
        )
        if number is not None:
            assert outline != "none", number
            found.add(int(number))
    assert found == set(wanted)
    page.focus("#tab-events")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.id") == "tab-thresholds"


def test_missed_events_are_added_by_keyboard(opened: Opened, tmp_path: Path) -> None:
    page = opened(write_page(tmp_path / "page.html", shown("a.wav", one_class(64), sound=False)))
    for key in ("ArrowRight", "ArrowRight", "a"):
        page.keyboard.press(key)
    page.keyboard.type("Cat")
    for key in ("Enter", ".", ".", ">"):
        page.keyboard.press(key)
    shows(page, "#live", "offset 0:03.05")
    (event,) = read_events(exported(page, "review", tmp_path))["a.wav"]
    assert (event.label, event.onset, event.offset) == ("Cat", 2.1, 3.05)


def test_scores_are_drawn_alike_at_every_zoom(opened: Opened, tmp_path: Path) -> None:
    """Outlines where a token is wider than a pixel, and strips of pixels where it is not."""
    scores = one_class(20_000, (8000, 12_000, 0.9), (15_000, 17_000, 0.3))
    recording = shown("a.wav", scores[:64], sound=False)
    long = type(recording)("a.wav", PresenceMap(scores, LABELS, TOKEN, 20_000 * TOKEN), recording.sketch)
    page = opened(write_page(tmp_path / "page.html", long))
    page.keyboard.press("0")

    def colours(*places: float) -> list[str]:
        page.wait_for_timeout(200)
        return page.evaluate(
            """places => {
                const canvas = document.querySelector('#lanes');
                const style = getComputedStyle(document.documentElement);
                return places.map(place => {
                    const [r, g, b, a] = canvas.getContext('2d').getImageData(place * canvas.width, 21, 1, 1).data;
                    const hex = '#' + [r, g, b].map(value => value.toString(16).padStart(2, '0')).join('');
                    return a === 0 ? 'nothing' : ['soft', 'line'].find(name => style.getPropertyValue('--' + name) === hex);
                });
            }""",
            list(places),
        )

    assert colours(0.1, 0.41, 0.5, 0.59, 0.61, 0.8) == ["nothing", "soft", "soft", "soft", "nothing", "line"]
    page.click("#tab-thresholds")
    page.fill("#slider0", "0.2")
    assert colours(0.5, 0.8, 0.9) == ["soft", "soft", "nothing"]
    page.evaluate("location.hash = '#t=2495-2505'")  # the onset, at 2500 s, is in the middle
    assert colours(0.1, 0.4, 0.6, 0.9) == ["nothing", "nothing", "soft", "soft"]


def test_json_of_rules(tmp_path: Path) -> None:
    values = rule_values(("Dog",), PostProcessing(median_filter=0.9, step_filter=1.3), TOKEN)[0]
    assert json.loads(json.dumps(values)) == {
        "threshold": 0.5,
        "threshold_low": None,
        "median": 3,
        "min_gap": 0.0,
        "min_event": 0.0,
        "side": 2,
        "merge_absolute": 0.0,
        "merge_relative": 0.0,
        "edge_level": 0.0,
        "score_slope": 1.0,
        "score_offset": 0.0,
    }


def test_filters_list_labels_that_come_later(opened: Opened, tmp_path: Path) -> None:
    """Labels that a reviewer gives, and classes whose events begin with a lower threshold."""
    scores = one_class(60, (10, 20, 0.9), (30, 40, 0.8))
    scores[45:50, 1] = 0.3
    page = opened(write_page(tmp_path / "page.html", shown("a.wav", scores, sound=False)))
    choices = "[...document.querySelectorAll('#filter-class option')].map(one => one.textContent).join()"
    assert page.evaluate(choices) == "every class,Dog"
    page.keyboard.press("n")
    page.keyboard.press("4")
    page.keyboard.type("Wolf")
    page.keyboard.press("Enter")
    until(page, f"{choices} === 'every class,Dog,Wolf'")
    page.click("#tab-thresholds")
    page.fill("#slider-1", "0.2")
    until(page, f"{choices} === 'every class,Cat,Dog,Wolf'")
    page.click("#tab-events")
    page.select_option("#filter-class", "Wolf")
    shows(page, "#count", "1 of 3")
    page.keyboard.press("z")  # the choice stays while no event has the label
    shows(page, "#count", "0 of 3")


def test_keys_act_on_events_after_clicks(opened: Opened, tmp_path: Path) -> None:
    """Space would press a clicked button again, and letters would choose in a list."""
    runs = [(10 * i, 10 * i + 4, 0.9) for i in range(4)]
    page = opened(write_page(tmp_path / "page.html", shown("a.wav", one_class(60, *runs))))
    page.keyboard.press("n")
    page.click("[data-verdict=right]")
    page.keyboard.press("Space")
    page.wait_for_timeout(100)
    shows(page, "#heard-text", "1 of 4 judged")
    page.focus("#range")
    page.keyboard.press("2")
    shows(page, "#heard-text", "2 of 4 judged")
    before = page.input_value("#range")
    page.keyboard.press("ArrowRight")
    assert int(page.input_value("#range")) == int(before) + 1


def test_paper_has_the_lanes_with_events_in_view(opened: Opened, tmp_path: Path) -> None:
    scores = np.zeros((200, 40), np.float32)
    scores[10:20] = 0.9
    scores[150:160, 0] = 0.9
    labels = tuple(f"class {i:02d}" for i in range(40))
    page = opened(write_page(tmp_path / "page.html", shown("a.wav", scores, labels=labels, sound=False)))
    names = "document.querySelectorAll('#names button').length"
    high = "document.querySelector('#lanes').height / Math.min(devicePixelRatio, 2)"
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(names) == 40
    assert page.evaluate(high) == 40 * 40  # all of them, not only those on the screen
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(names) == 40
    page.evaluate("location.hash = '#t=47-49'")
    page.wait_for_timeout(100)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(names) == 1
