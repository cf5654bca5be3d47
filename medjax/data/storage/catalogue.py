"""The files of `datasets/` by name. The folder is no package, or it would shadow one on PyPI."""

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from medjax.types import UserError

DATASETS = Path(__file__).parents[3] / "datasets"


def file_of(command: str, name: str, what: str, declared: str) -> Path:
    """The file of the data set `name`: "phantoms", "datasets/phantoms" or a path.

    Raises UserError where there is none, with the names of those that have `what`, which their text shows by `declared`.
    """
    for file in (Path(name), Path(f"{name}.py"), DATASETS / f"{name}.py"):
        if name and file.suffix == ".py" and file.is_file():
            return file
    there = sorted(path.stem for path in DATASETS.glob("*.py") if declared in path.read_text(encoding="utf-8"))
    raise UserError(command, f"no {what} {name!r}; there is {', '.join(there) or 'none: run it in the project'}, or name a "
                    "file that has one")


def module_of(file: Path) -> ModuleType:
    """The module in a file."""
    name = f"medjax_datasets_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:8]}_{file.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]
