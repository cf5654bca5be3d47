"""docs/extending.md: its files, written as a package of their own, train, are evaluated and applied; mistakes are named."""

import csv
import importlib
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medjax import registry
from medjax.data.storage.names import pseudonym
from medjax.train.loop import train
from medjax.types import UserError
from tests.commands import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^`([\w/.]+)`\n\n```\w+\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE))
PACKAGE = "mypackage"
TINY = ["--config.steps=3", "--config.batch_size=2", "--config.log_every=1", "--config.eval_every=3",
        "--config.eval_samples=1", "--config.checkpoint_every=3", "--config.model.width=2", "--config.data.patch=(16,16)",
        "--config.data.source.size=24", "--config.data.source.count=10"]


def install(folder: Path) -> Path:
    """Writes the page's package as pip would install it."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    project = tomllib.loads(FILES["pyproject.toml"])["project"]
    info = folder / f"{project['name']}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    points = [f"[{group}]\n" + "".join(f"{name} = {module}\n" for name, module in found.items())
              for group, found in project["entry-points"].items()]
    (info / "entry_points.txt").write_text("\n".join(points))
    return folder


def command(folder: Path, *args: str | Path) -> subprocess.CompletedProcess:
    environment = os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(folder)}
    return subprocess.run([sys.executable, *map(str, args)], cwd=ROOT, env=environment, text=True, capture_output=True,
                          timeout=300, check=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of the package, of a run of its config, and what training printed."""
    folder = install(tmp_path_factory.mktemp("extension"))
    done = command(folder, "train.py", f"--config={folder}/{PACKAGE}/configs/sharpen.py", f"--workdir={folder}/run", *TINY)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_every_kind_has_a_file():
    folders = {str(Path(name).parent) for name in FILES if name.endswith(".py")}
    assert {f"{PACKAGE}/{layer}" for layer in ("tasks", "models", "objectives", "measures", "classical", "data/sources",
                                               "data/formats", "configs")} <= folders
    assert {"pyproject.toml", f"{PACKAGE}/outputs.py"} <= set(FILES)


def test_training_and_evaluation_have_the_packages_parts(trained):
    folder, printed = trained
    found = json.loads((folder / "run" / "eval" / "metrics.json").read_text())
    assert set(found["rows"]) == {"input", "unsharp-mask", "model"}
    assert set(found["rows"]["model"]) == {"psnr", "ssim", "worst_error"}
    assert found["strengths"]["unsharp-mask"] > 0
    assert found["rows"]["input"]["worst_error"] > 10  # of values up to 1000, in their own units
    assert "worst error" in printed
    assert "unsharp-mask" in printed
    rows = csv.DictReader((folder / "run" / "eval" / "per_sample.csv").read_text().splitlines())
    salt = bytes.fromhex(next(iter(json.loads((folder / "run" / "split.json").read_text()))).partition(":")[0])
    assert {row["sample"].split(":")[0] for row in rows} <= {pseudonym(salt, f"bars-{number}") for number in range(100)}
    logged = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any("train/model/mirrored" in line for line in logged)
    assert json.loads((folder / "run" / "config.json").read_text())["objective"]["name"] == "equivariant"
    assert (folder / "run" / "eval" / "report.html").stat().st_size > 10_000


def test_the_new_format_is_read_and_kept_and_the_new_output_written(trained):
    folder, _ = trained
    image = np.random.default_rng(0).integers(0, 1000, (20, 24)).astype(np.int16)
    np.savez(folder / "scan.npz", image=image, spacing_mm=np.array([1.0, 1.1]))
    done = command(folder, "-m", "medjax.apply", f"--workdir={folder}/run", f"--input={folder}/scan.npz",
                   f"--output={folder}/sharp.npz")
    assert done.returncode == 0, done.stderr
    with np.load(folder / "sharp.npz") as result:
        assert result["image"].dtype == np.int16
        assert result["image"].shape == image.shape
        assert np.abs(result["image"] - image).max() > 0
        np.testing.assert_array_equal(result["spacing_mm"], [1.0, 1.1])
    with Image.open(folder / "sharp_preview.png") as preview:
        assert preview.size == (24, 20)


@pytest.fixture
def extension(tmp_path, monkeypatch):
    """The package in this process."""
    folder = install(tmp_path)
    monkeypatch.syspath_prepend(folder)
    registry.packages.cache_clear()
    yield folder
    registry.packages.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == PACKAGE]:
        del sys.modules[name]


def test_the_derived_task_measures_volumes(extension):
    import jax.numpy as jnp

    from medjax.types import Example, NetworkInput, Prediction

    task = registry.build("tasks", registry.spec("tasks", "segment_volumes"), data_range=(0.0, 1.0), ndim=2)
    target = np.zeros((2, 8, 8, 2), np.float32)
    target[..., 0] = 1
    target[0, :4, :4] = (0, 1)
    pred = target.copy()
    pred[0, :4, 2:4] = (1, 0)  # half of it is missed; the second sample has none
    example = Example(NetworkInput(jnp.zeros((2, 8, 8, 1))), jnp.asarray(target), jnp.ones((2, 8, 8, 1), bool),
                      jnp.arange(2), jnp.ones((2, 2)))
    found = task.measure(Prediction(jnp.asarray(pred)), example)
    np.testing.assert_allclose(found["volume_error"], [50, np.nan])
    samples = [{name: np.asarray(values[i]) for name, values in found.items()} for i in range(2)]
    assert task.summarise(samples)["volume_error"] == 50
    assert [metric.name for metric in task.metrics][-1] == "volume_error"


TASK, MODEL, OBJECTIVE, SOURCE = (f"{PACKAGE}/{name}.py" for name in (
    "tasks/sharpen", "models/two_layer", "objectives/equivariant", "data/sources/bars"))
MISTAKES = {
    "a task without measure": (TASK, "import Restoration", "import TaskBase as Restoration",
                              "Sharpen lacks example, losses, measure, render of the contract Task"),
    "a task's argument": (TASK, "width: int = 5\n    noise: float = 0.01", "width: int\n    noise: float",
                          "Sharpen has the argument 'noise' without a default; supplied: data_range, ndim, features"),
    "a model's argument": (MODEL, "width: int = 16\n    kernel: int = 5", "width: int\n    kernel: int",
                           "TwoLayer has the argument 'kernel' without a default; supplied: ndim, channels, scale"),
    "a model's call": (MODEL, ", context: Context = None, train: bool = False", "",
                       r"TwoLayer.__call__ can't be called with \(image, context, train\): too many positional arguments"),
    "a model without train": (MODEL, ", train: bool = False", "", "TwoLayer.__call__ can't be called with .*'train'"),
    "a source without load": (SOURCE, "def load", "def read", r"Bars lacks load of the contract Source"),
    "no means": (OBJECTIVE, r"terms = weighted.*", "terms = {'l1': jnp.abs(pred - example.target).mean()}",
                 r"Equivariant.losses gives .* for 'l1'; give Mean\(total, count\)"),
    "no sums": (OBJECTIVE, r"terms = weighted.*", "terms = {'l1': Mean(jnp.abs(pred - example.target), jnp.ones(()))}",
                r"Equivariant.losses gives a Mean of shape \(2, 16, 16, 1\) for 'l1'; give the sum"),
    "no dict": (OBJECTIVE, r"return terms, variables.*", "return terms['mirrored']",
                "Equivariant.losses gives Mean; give a dict of Mean .* and the dict of variables"),
    "a class of another name": (MODEL, "class TwoLayer", "class Net", "has no class named like the file; it has Net; call "
                                "it TwoLayer"),
    "no channel axis": (MODEL, r"return image.*", "return Conv(1, self.kernel)(hidden)[..., 0]",
                        r"TwoLayer gives an array of shape \(2, 16, 16\); give \(B, H, W, C\)"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_its_file_before_anything_is_written(mistake, extension, monkeypatch, tmp_path):
    name, old, new, message = MISTAKES[mistake]
    text = FILES[name]
    changed = re.sub(old, new, text, count=1)
    assert changed != text
    (extension / name).write_text(changed, encoding="utf-8")
    importlib.invalidate_caches()
    with pytest.raises(UserError, match=f"^{name}: {message}") as error:
        train(tiny(), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def tiny():
    """The page's config at the size of a test."""
    config = importlib.import_module(f"{PACKAGE}.configs.sharpen").get_config()
    config.update(steps=1, batch_size=2)
    config.model.update({key: 2 for key in ("width",) if key in config.model})
    config.data.update(patch=(16, 16))
    config.data.source.update(size=24, count=10)
    config.mesh.data = 1
    return config


@pytest.mark.slow
def test_a_mistake_ends_a_command_with_one_line(tmp_path):
    folder = install(tmp_path)
    (folder / MODEL).write_text(FILES[MODEL].replace(", context: Context = None, train: bool = False", ""))
    done = command(folder, "train.py", f"--config={folder}/{PACKAGE}/configs/sharpen.py", f"--workdir={folder}/run", *TINY)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert lines == [next(line for line in lines if line.startswith(f"error: {MODEL}: TwoLayer.__call__ can't be called"))]


def test_other_objectives_say_that_a_tasks_losses_are_no_means(extension, tmp_path):
    text = FILES[TASK].replace("    def references", "    def losses(self, pred, example):\n"
                               "        return {'l1': jnp.abs(pred - example.target).mean()}\n\n    def references", 1)
    (extension / TASK).write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"^config\.objective\.loss: 'l1' is a .* where a Mean is needed"):
        train(tiny(), tmp_path / "run")
