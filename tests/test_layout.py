"""The layers: who may import whom, read from the source."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = [
    {"types", "registry", "files", "native"},
    {"ops"},
    {"physics", "measures"},
    {"models", "classical", "data"},
    {"weights"},
    {"tasks", "objectives"},
    {"train"},
    {"infer"},
    {"bench", "report"},
    {"evaluation", "serve"},
    {"cli", "sweep"},
    # Commands, run with python -m.
    {"align", "apply", "build", "compare", "convert", "deidentify", "dose", "download", "explain", "export", "lesions",
     "readers", "view", "__main__"},
]
TOP = len(LAYERS)  # train.py, eval.py, configs
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}
MAX_LINES = 450

SOURCES = sorted(path for folder in ("medjax/**", "configs/**", "datasets/**", ".") for path in ROOT.glob(f"{folder}/*.py"))
MODULES = [path for path in SOURCES if path.is_relative_to(ROOT / "medjax")]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def part_of(path: Path) -> str:
    """The folder or single file of medjax that the module belongs to."""
    return path.relative_to(ROOT / "medjax").parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Every module that is imported anywhere in the file, in full; from-imports with and without the name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def parts(path: Path) -> set[str]:
    """The parts of medjax that the file imports from."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("medjax.")}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_downwards(path):
    own = part_of(path)
    if own == "__init__":
        return
    assert own in LAYER, f"medjax/{own} has no layer; add it to LAYERS"
    layer = TOP if path.stem == "__main__" else LAYER[own]
    for other in parts(path):
        assert LAYER[other] < layer or other == own or (layer == 0 and LAYER[other] == 0), (
            f"{name_of(path)} (layer {layer}) imports medjax.{other} (layer {LAYER[other]})")


def test_the_layers_name_only_what_exists():
    there = {path.stem for path in (ROOT / "medjax").iterdir()}
    assert set(LAYER) <= there


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_flax_stays_in_the_models(path):
    if any(name.split(".")[0] == "flax" for name in imports(path)):
        assert part_of(path) in ("models", "train") or name_of(path) == "medjax/weights/_files.py"  # Flax's format of files
        assert part_of(path) == "models" or not any("linen" in name or "nnx" in name for name in imports(path))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_files_are_small_and_say_what_they_hold(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    assert path.stem not in ("util", "utils", "helper", "helpers", "misc", "common")
    assert not text.strip() or ast.get_docstring(ast.parse(text))


def test_no_jax_that_is_gone():
    """`jax.experimental.shard_map` is not in jax 0.11; `jax.shard_map` takes its place."""
    for path in SOURCES:
        assert not {name for name in imports(path) if name.startswith("jax.experimental.shard_map")}, name_of(path)


def test_datasets_is_no_package():
    """An __init__.py there would shadow the PyPI package of that name."""
    assert not (ROOT / "datasets" / "__init__.py").exists()
