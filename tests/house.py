"""The size of the house: lines by room, the longest functions, and whether the limits hold.

    python tests/house.py

Limits that must hold are in `LIMITS`; the script exits with 1 if one does not. Blank lines and comments count:
what is read is what is counted.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parent.parent / "htsat_sed"
LIMITS = {"lines of the longest function": 80, "lines of evaluate()": 60}
AIMS = {"lines of the package": 15_000, "lines of the command line": 3_000}


class Function(NamedTuple):
    """A function or method, from its first decorator to its last line."""

    lines: int
    name: str
    module: Path


def functions(module: Path) -> Iterator[Function]:
    """All functions of a module, nested ones included; a docstring counts."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            assert node.end_lineno is not None
            yield Function(node.end_lineno - first + 1, node.name, module.relative_to(PACKAGE))


def measure() -> tuple[Counter[str], list[Function]]:
    """Lines by room, and all functions, the longest first."""
    lines: Counter[str] = Counter()
    found: list[Function] = []
    for module in sorted(PACKAGE.rglob("*.py")):
        room = module.relative_to(PACKAGE).parts[0]
        lines[room] += len(module.read_text(encoding="utf-8").splitlines())
        found += functions(module)
    return lines, sorted(found, reverse=True)


def figures() -> dict[str, int]:
    """The figures that `LIMITS` and `AIMS` are about."""
    lines, found = measure()
    commands = [each for each in found if each.name == "evaluate" and each.module.parts[0] == "cli"]
    return {
        "lines of the package": lines.total(),
        "lines of the command line": lines["cli"],
        "lines of the longest function": found[0].lines,
        "lines of evaluate()": max((each.lines for each in commands), default=0),
    }


def main() -> int:
    """Print all of it."""
    lines, found = measure()
    for room, count in lines.most_common():
        print(f"{count:6d}  {room}")
    print(f"{lines.total():6d}  in {len(list(PACKAGE.rglob('*.py')))} modules\n")
    for function in found[:10]:
        print(f"{function.lines:6d}  {function.module}: {function.name}")
    print()
    broken = 0
    for name, value in figures().items():
        if name in LIMITS:
            held = value <= LIMITS[name]
            broken += not held
            print(f"{name}: {value}, at most {LIMITS[name]}: {'holds' if held else 'does not hold'}")
        else:
            print(f"{name}: {value}, aim {AIMS[name]}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
