"""`--channel` and `--track`: what is listened to, and what a journal remembers of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

CASES = Path(__file__).parents[1] / "audio" / "cases"


@pytest.mark.parametrize("command", ["detect", "tag"])
def test_channel_and_track(command: str, run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    for case, choice in (("antiphase.flac", "--channel"), ("two_tracks_first_silent.mp4", "--track")):
        out = tmp_path / f"{case}.csv"
        code, _, err = run(command, CASES / case, "-o", out)
        assert code == 0
        assert f"{choice} " in " ".join(err.split())
        before = out.read_text()
        code, _, err = run(command, CASES / case, "-o", out, choice, "2", "--restart")
        assert (code, "warning" in err) == (0, False)
        assert out.read_text() != before
        code, _, err = run(command, CASES / case, "-o", tmp_path / "none.csv", choice, "3")
        assert code == 1
        assert choice.removeprefix("--") + " 3" in " ".join(err.split())
    assert run(command, CASES / "antiphase.flac", "--channel", "0")[0] == 2


def test_journal_remembers_the_channel(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    arguments = ("tag", CASES / "antiphase.flac", tmp_path / "gone.wav", "-o", tmp_path / "tags.csv")
    assert run(*arguments, "--channel", "1")[0] == 1
    (tmp_path / "tags.csv").unlink()
    journal = tmp_path / "tags.csv.journal"
    assert '"channel":1' in journal.read_text().replace(" ", "")
    assert '"track":null' in journal.read_text().replace(" ", "")
