"""The documentation: links, commands and keys that exist, and a table of all configs."""

import ast
import functools
import importlib
import re
import shlex
from pathlib import Path

import pytest

from configs import base
from medjax import registry
from medjax.train.run import assemble
from tests.commands import ROOT

PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
CONFIGS = sorted(path for path in (ROOT / "configs").glob("*.py") if path.stem not in ("__init__", "base"))
FENCED = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


TEXTS = {name_of(path): path.read_text(encoding="utf-8") for path in PAGES if path.name != "CHANGELOG.md"}
TEXTS |= {name_of(path): ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")), clean=True) for path in CONFIGS}


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings."""
    heads = re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(page):
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        if path.startswith(("https:", "http:")):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Every `--config=FILE:STRUCTURE` of the repository ("" where none is named), with the keys given after it."""
    spans = [span for block in FENCED.findall(text) for span in re.sub(r"\\\n\s*", " ", block).splitlines()]
    spans += re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", FENCED.sub("", text))
    spans += re.findall(r"^ {4}\S(?:.*\\\n)*.*", text, re.MULTILINE)
    found = []
    for span in spans:
        files = re.findall(r"--config=(configs/\w+\.py(?::[\w=,]+)?)", span)
        bare = re.findall(r"^(\w+\.py(?::[\w=,]+)?)(?= |$)", span)  # in tables of configs
        files += [f"configs/{name}" for name in bare if (ROOT / "configs" / name.partition(":")[0]).exists()]
        keys = re.findall(r"--config\.([\w.]+)=", span)
        if files or keys:
            found.append((files[0] if files else "", keys))
    return found


@pytest.mark.parametrize("name", [name_of(path) for path in PAGES if path.name != "CHANGELOG.md"])
def test_files_that_are_named_exist(name):
    """Paths from the root of the repository; what a run or a build writes is not there."""
    named = re.findall(r"`((?:medjax|configs|tests|benchmarks|datasets|docs)/[\w/.]*\w/?)`", TEXTS[name])
    assert not [path for path in named if not (ROOT / path).exists()]


def keys_of(config) -> set[str]:
    found = set()
    for key, value in config.items():
        found |= {key}
        if hasattr(value, "items"):
            found |= {f"{key}.{inner}" for inner in keys_of(value)}
    return found


@pytest.fixture(scope="module")
def every_key() -> set[str]:
    """The keys of every config, task, model, objective and source."""
    found = keys_of(base.get_config())
    for layer in ("tasks", "models", "objectives", "data.sources"):
        for name in registry.names(layer):
            found |= {f"{layer.removesuffix('s')}.{key}" for key in registry.spec(layer, name)}
    return found


@pytest.mark.parametrize("name", TEXTS)
def test_configs_and_keys_in_the_text_exist(name, every_key):
    for named, keys in commands(TEXTS[name]):
        file, _, structure = named.partition(":")
        known = every_key
        if file:
            assert (ROOT / file).exists(), named
            module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
            known = keys_of(module.get_config(structure) if structure else module.get_config())
        assert not set(keys) - known, (named, set(keys) - known)


def promises(path: Path) -> list[tuple[str, str, list[str]]]:
    """What a config's docstrings offer: the text, the structure behind the colon, and the keys with their values."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    (function,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "get_config")
    text, short = ast.get_docstring(tree), ast.get_docstring(function)
    spans = [re.sub(r"\\\n\s*", " ", span) for span in re.findall(r"^ {4}python (?:.*\\\n)*.*", text, re.MULTILINE)]
    spans += re.findall(r"`([^`]+)`", text) + re.findall(r'"([\w.]+=\w+)"', short)
    found = []
    for span in spans:
        words = shlex.split(span)
        named = [word.partition(":")[2] for word in words if word.startswith("--config=")]
        bare = [word.lstrip(":") for word in words if re.fullmatch(r":?[a-z_.]+=[\w=,]+", word)]
        keys = [word.removeprefix("--config.") for word in words if word.startswith("--config.")]
        if keys or any(named + bare):
            found.append((span, (named + bare + [""])[0], keys))
    return found


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_what_a_config_offers_is_accepted(path):
    """The structure, the keys and their values: the run is put together as before training."""
    module = importlib.import_module(f"configs.{path.stem}")
    for span, structure, keys in promises(path):
        config = module.get_config(structure)
        for key, several in (part.split("=", 1) for part in keys):
            group, last = functools.reduce(lambda node, name: node[name], key.split(".")[:-1], config), key.split(".")[-1]
            for value in several.split("|"):
                group[last] = value if isinstance(group[last], str) else ast.literal_eval(value)
        config.data.channels = 3 if config.task.name.startswith("fuse") else 1
        config.data.range = config.data.range or (0.0, 1.0)
        assert assemble(config).config is config, span


def test_the_readme_lists_every_config():
    rows = dict(re.findall(r"^\| `(\w+\.py)` \| (.*) \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE))
    first = {path.name: " ".join(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).split("\n\n")[0].split())
             for path in CONFIGS}
    assert rows == first
