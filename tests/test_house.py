"""The rules of the house: who may import whom, and what stays out of the way until it is needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import htsat_sed

PACKAGE = Path(htsat_sed.__file__).parent
# A room knows only the rooms before it; those of one line know none of each other.
FLOORS = [
    ["errors"],
    ["whole_file", "libraries", "toml"],
    ["remote"],
    ["audio", "clock"],
    ["labels", "post_processing"],
    ["model"],
    ["detection"],
    ["annotations"],
    ["archive", "evaluation", "live", "pictures", "runs", "segments", "summary"],
    ["report", "training"],
    ["cli"],
    ["__main__"],
]
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
OWNERS = {
    "lightning": {"training", "cli"},  # the command asks whether it is there
    "sed_eval": {"evaluation"},
    "psds_eval": {"evaluation"},
    "sed_scores_eval": {"evaluation"},
    "dcase_util": {"evaluation"},
    "typer": {"cli"},
    "rich": {"cli"},
    "torchaudio": set(),
    "openvino": {"model"},
    "nncf": {"model"},
    "onnx": {"model"},
    "onnxruntime": {"model"},
    "soundfile": {"audio", "live", "training", "segments"},
    "sklearn": {"evaluation"},
    "matplotlib": {"evaluation", "pictures"},
    "av": {"audio"},
    "PIL": {"report"},
    "fsspec": {"remote"},
    "sounddevice": {"live"},
    "paho": {"live"},
    "ray": {"runs"},
}
# Annotations and evaluation know events and presence maps, never the model.
STRANGERS = [
    ("annotations", "model"),
    ("evaluation", "model"),
    ("annotations", "audio"),
    ("segments", "model"),
]

MODULES = sorted(PACKAGE.rglob("*.py"))


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_rooms_know_only_those_before_them(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own == "__init__":
        return
    for module in imports(path):
        other = room(module) if module.startswith("htsat_sed") else ""
        if other in FLOOR and other != own:
            assert FLOOR[other] < FLOOR[own], f"{own} imports {module}"
            assert (own, other) not in STRANGERS, f"{own} imports {module}"
        library = module.split(".")[0]
        assert own in OWNERS.get(library, {own}), f"{own} imports {library}"


def test_every_room_has_its_place() -> None:
    rooms = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in MODULES}
    assert rooms - {"__init__"} <= set(FLOOR)


@pytest.mark.parametrize(
    ("command", "absent"),
    [
        ("import htsat_sed", ["torch", "pandas", "matplotlib", "lightning", "scipy"]),
        (
            "import htsat_sed.cli",
            ["torch", "numpy", "pandas", "matplotlib", "lightning", "scipy", "soundfile"],
        ),
        (
            "from htsat_sed import Detector, Event, PostProcessing, PresenceMap, load_checkpoint",
            ["pandas", "matplotlib", "lightning", "torchaudio", "torch.utils.tensorboard", "scipy"],
        ),
    ],
)
def test_imports_stay_light(command: str, absent: list[str]) -> None:
    check = f"{command}; import sys; print([name for name in {absent!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_nothing_before_training_imports_what_may_be_missing() -> None:
    """All of the package but training, with its evaluation, pictures and command line."""
    modules = [
        ".".join(("htsat_sed", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
        for path in MODULES
        if path.relative_to(PACKAGE).parts[0] not in ("training", "__main__.py")
    ]
    absent = ["torchaudio", "sed_eval", "psds_eval", "dcase_util", "librosa", "sklearn", "lightning"]
    check = f"""
import sys
from importlib import import_module
for name in {absent!r}:
    sys.modules[name] = None  # cannot be imported
for name in {modules!r}:
    import_module(name)
"""
    subprocess.run([sys.executable, "-c", check], check=True, timeout=300)


def test_public_names() -> None:
    for name in htsat_sed.__all__:
        assert name == "FORMATS" or getattr(htsat_sed, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'htsat_sed' has no attribute 'nothing'"):
        htsat_sed.nothing  # noqa: B018


def test_no_two_modules_of_tests_have_one_name():
    """pytest imports them by their base names, and stops at the second."""
    names = [path.name for path in Path(__file__).parent.rglob("*.py") if path.name != "conftest.py"]
    assert len(names) == len(set(names))
