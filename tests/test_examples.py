"""The example: what the README says of it is what the bundled checkpoint finds in it."""

import re
import shutil
import sys
from pathlib import Path

import pytest

import htsat_sed
from htsat_sed.cli import main

ROOT = Path(__file__).parents[1]


def test_readme_tells_what_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["htsat-sed", "detect", str(ROOT / "examples" / "home.flac")])
    with pytest.raises(SystemExit) as stopped:
        main()
    out, err = capsys.readouterr()
    assert (stopped.value.code or 0, err) == (0, "")
    shown = [
        line.strip().split("\t") for line in (ROOT / "README.md").read_text().splitlines() if "\t" in line
    ]
    found = [line.split("\t") for line in out.splitlines()]
    assert found[0] == shown[0]
    assert [(row[0], row[3]) for row in found] == [(row[0], row[3]) for row in shown]
    for told, row in zip(shown[1:], found[1:], strict=True):  # the last digit may differ between processors
        assert [float(time) for time in row[1:3]] == pytest.approx(
            [float(time) for time in told[1:3]], abs=0.01
        )


def test_the_api_page_lists_every_public_name() -> None:
    listed = {
        line.removeprefix("::: htsat_sed.")
        for line in (ROOT / "docs" / "api.md").read_text(encoding="utf-8").splitlines()
        if line.startswith(":::")
    }
    assert listed == set(htsat_sed.__all__)


def test_the_library_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, object] = {}
    for block in blocks:
        exec(block, names)
    shown = capsys.readouterr().out
    assert "failed: missing.wav: " in shown
    assert "examples/home.flac" in shown
    assert (tmp_path / "events.tsv").is_file()
