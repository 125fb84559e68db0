"""Whatever a TOML file holds is a table, or one error that names the file; the same for all its readers."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from htsat_sed.errors import AnnotationError
from htsat_sed.labels import read_class_map
from htsat_sed.post_processing import read_post_processing
from htsat_sed.toml import read_toml
from htsat_sed.training.recipe import read_recipe

BROKEN = {
    "deep list": "threshold = " + "[" * 5000 + "]" * 5000,
    "deep table": "a = " + "{b = " * 5000 + "1" + "}" * 5000,
    "long key": "a." * 30_000 + "b = 1",
    "long header": "[" + "a." * 30_000 + "b]\nc = 1",
    "long key in a list": "a = [{" + '"a".' * 30_000 + "b = 1}]",
    "endless integer": "threshold = " + "9" * 5000,
    "huge integer": "min_gap = " + "9" * 400,
    "nested key": "threshold" + ".a" * 15 + " = 1",
    "no text": "\ud800",
}


@pytest.mark.parametrize("read", [read_post_processing, read_class_map, read_recipe])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_one_line(read: Callable[[Path], object], name: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(BROKEN[name].encode("utf-8", "surrogatepass"))
    limit = sys.getrecursionlimit()
    with pytest.raises(AnnotationError) as raised:
        read(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in raised.value.reason
    assert len(raised.value.reason) < 1000
    assert sys.getrecursionlimit() == limit


def test_points_in_texts_are_no_nesting(tmp_path: Path) -> None:
    path = tmp_path / "map.toml"
    path.write_text('\ufeffA = ["' + "." * 100 + "\", '" + "." * 100 + "']\n", encoding="utf-8")
    assert read_toml(path, "a class map") == {"A": ["." * 100] * 2}


def test_points_in_comments_and_long_texts_are_no_nesting(tmp_path: Path) -> None:
    path = tmp_path / "map.toml"
    line = "." * 40
    quoted = f'# {line}\nA = ["""\n{line}\n{line}""", \'\'\'\n{line}\'\'\'] # "{line}\n'
    path.write_text(quoted, encoding="utf-8")
    assert read_toml(path, "a class map") == {"A": [f"{line}\n{line}", line]}
