"""A trained registration network beside demons and ANTs' SyN, on people that it has not seen: distance, folds, seconds.

    python -m benchmarks.scores brain_register --config.data.path=FOLDER --runs=runs
    python -m benchmarks.registration --workdir=runs/brain_register --images=FOLDER --peer_python=PYTHON

Planted: test slices, each turned, shifted and bent as the task does, whose true displacement is known. Real: pairs of test
people, each person's slice onto the next one's; there the overlap of tissue labels (`*_label.nii.gz` beside `*_T1w.nii.gz`)
says how near they come. Every method registers one pair at a time; compilation of the network is not counted and stands
apart. PYTHON has the package antspyx (`pip install antspyx`). Written is `benchmarks/results/registration.json`.
"""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from tqdm import tqdm

from medjax.bench import machine
from medjax.classical.register import demons
from medjax.data.io import read
from medjax.data.pipeline import eval_batches, whole_batch
from medjax.files import write_atomically
from medjax.measures.statistics import by_patient, interval, paired_p
from medjax.ops.displacement import jacobian_determinant, warp
from medjax.train.evaluator import EVAL_SEED
from medjax.train.run import Run, load_splits, restore_best
from medjax.types import NetworkInput, Region, State

WORKDIR = flags.DEFINE_string("workdir", None, "The run.", required=True)
IMAGES = flags.DEFINE_string("images", "", "Folder with the images and their label maps, for the real pairs; none without.")
PEER = flags.DEFINE_string("peer_python", "", "A Python that has antspyx; without it SyN is left out.")
SLICES = flags.DEFINE_integer("slices", 4, "Slices of each person, evenly spread.")
JSON = flags.DEFINE_string("json", "", "Where the results go, another place than benchmarks/results.")

RESULT = Path(__file__).with_name("results") / "registration.json"
CHILD = Path(__file__).with_name("registration_peer.py")
Register = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Pair:
    """Images `(H, W)` in unit range; for a planted pair the `true` displacement, for a real one the label maps."""

    patient: str
    fixed: np.ndarray
    moving: np.ndarray
    spacing_mm: np.ndarray
    true: np.ndarray | None = None
    labels: tuple[np.ndarray, np.ndarray] | None = None


def planted(run: Run, regions: list[Region]) -> Iterator[Pair]:
    """Test slices and what the task's displacement makes of them."""
    make = jax.jit(run.task.evaluation_example)
    patients = {region.record.id: region.record.subject for region in regions}
    for batch in eval_batches(regions, batch_size=1, ndim=2, limit=SLICES.value * len(patients)):
        arrays = {name: value for name, value in batch.items() if name != "name"}
        example = jax.device_get(make(jax.random.key(EVAL_SEED), arrays))
        moving, fixed = np.moveaxis(example.input.image[0], -1, 0)
        (owner,) = [patient for name, patient in patients.items() if batch["name"][0].startswith(name)]
        yield Pair(owner, fixed, moving, example.spacing_mm[0], true=example.target[0])


def real(run: Run, regions: list[Region], folder: Path) -> Iterator[Pair]:
    """Each test person's slices as fixed images and the next person's as moving ones, with both label maps."""
    for region, other in zip(regions, regions[1:] + regions[:1], strict=True):
        volumes = [_unit(run, one) for one in (region, other)]
        maps = [_labels(folder, one) for one in (region, other)]
        depth = min(len(volume) for volume in volumes)
        for at in np.linspace(0, depth - 1, SLICES.value + 2)[1:-1].astype(int):
            yield Pair(region.record.subject, volumes[0][at], volumes[1][at], np.asarray(region.record.spacing_mm)[-2:],
                       labels=(maps[0][at], maps[1][at]))


def _unit(run: Run, region: Region) -> np.ndarray:
    found = [run.task.unit(whole_batch(region.record, 2, at))[0] for at in range(region.record.image.shape[0])]
    return np.stack([np.asarray(one)[0, ..., 0] for one in found])


def _labels(folder: Path, region: Region) -> np.ndarray:
    """A record's label map on the grid of the record: axes as `medjax.data.io` turns them."""
    (path,) = folder.rglob(f"{Path(region.record.id).name.removesuffix('_T1w')}_label.nii.gz")
    (record,) = read(path)
    return record.image[..., 0]


def measure(pair: Pair, displacement: np.ndarray) -> dict[str, float]:
    """Mean distance from the truth in mm on tissue, or mean Dice of the labels; voxels of tissue in % where space folds."""
    tissue = pair.fixed > 0.1
    folds = np.asarray(jacobian_determinant(jnp.asarray(displacement)[None]))[0] <= 0
    found = {"folds": 100 * float(folds[tissue].mean())}
    if pair.true is not None:
        distance = np.sqrt((((displacement - pair.true) * pair.spacing_mm) ** 2).sum(-1))
        return found | {"distance_mm": float(distance[tissue].mean())}
    assert pair.labels is not None
    fixed, moving = pair.labels
    dice = []
    for value in np.unique(fixed[fixed > 0]):
        moved = np.asarray(warp(jnp.asarray(moving == value, jnp.float32)[None, ..., None], jnp.asarray(displacement)[None]))
        inside = moved[0, ..., 0] > 0.5
        dice.append(2 * (inside & (fixed == value)).sum() / (inside.sum() + (fixed == value).sum()))
    return found | {"dice": float(np.mean(dice))}


def network(run: Run, state: State) -> Register:
    """The run's displacement of a pair."""
    params, variables = state.for_use()

    @jax.jit
    def program(image: jax.Array) -> jax.Array:
        return run.objective.predict(params, variables, NetworkInput(image), jax.random.split(jax.random.key(0), 1)).image

    return lambda fixed, moving: np.asarray(jax.device_get(program(jnp.stack([moving, fixed], -1)[None])))[0]


def timed(register: Register, pairs: list[Pair], name: str) -> tuple[list[np.ndarray], list[float]]:
    """Displacements of all pairs and the seconds of each, after one that is not counted."""
    register(pairs[0].fixed, pairs[0].moving)
    found, seconds = [], []
    for pair in tqdm(pairs, name, unit="pair", leave=False, dynamic_ncols=True):
        start = time.perf_counter()
        found.append(register(pair.fixed, pair.moving))
        seconds.append(time.perf_counter() - start)
    return found, seconds


def syn(pairs: list[Pair], python: str) -> tuple[list[np.ndarray], list[float], str]:
    """ANTs' SyN of all pairs in a process of its own, the seconds of each, and the package's version."""
    with tempfile.TemporaryDirectory() as scratch:
        given, made = Path(scratch) / "given.npz", Path(scratch) / "made.npz"
        images = [(f"fixed{i}", pair.fixed) for i, pair in enumerate(pairs)]
        np.savez(given, **dict(images + [(f"moving{i}", pair.moving) for i, pair in enumerate(pairs)]))
        environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONHOME")}
        subprocess.run([python, str(CHILD), str(given), str(made)], check=True, env=environment)
        found = np.load(made)
        return [found[f"field{i}"] for i in range(len(pairs))], found["seconds"].tolist(), str(found["version"])


def compared(pairs: list[Pair], methods: dict[str, Register]) -> tuple[dict[str, Any], str]:
    """Every method's numbers over patients, with how it differs from the network; the version of antspyx."""
    version = ""
    rows: dict[str, dict[str, list[float]]] = {}
    for name, method in methods.items():
        fields, seconds = timed(method, pairs, name)
        rows[name] = _columns(pairs, fields) | {"seconds": seconds}
    if PEER.value:
        fields, seconds, version = syn(pairs, PEER.value)
        rows["SyN"] = _columns(pairs, fields) | {"seconds": seconds}
    patients = [pair.patient for pair in pairs]
    leading = "distance_mm" if pairs[0].true is not None else "dice"
    own = by_patient(rows["network"][leading], patients)
    found: dict[str, Any] = {"pairs": len(pairs), "patients": len(set(patients)), "rows": {}}
    for name, columns in rows.items():
        means = by_patient(columns[leading], patients)
        found["rows"][name] = {leading: float(means.mean()), "interval": interval(means),
                               "folds": float(np.mean(columns["folds"])),
                               "p": None if name == "network" else paired_p(means, own),
                               "seconds": float(np.median(columns["seconds"]))}
    return found, version


def _columns(pairs: list[Pair], fields: list[np.ndarray]) -> dict[str, list[float]]:
    numbers = [measure(pair, field) for pair, field in zip(pairs, fields, strict=True)]
    return {key: [one[key] for one in numbers] for key in numbers[0]}


def main(_: list[str]) -> None:
    workdir = Path(WORKDIR.value)
    run, state = restore_best(workdir)
    regions = load_splits(run.config, workdir)["test"]
    chosen = json.loads((workdir / "references.json").read_text(encoding="utf-8"))["demons"]["strength"]
    methods: dict[str, Register] = {"none": lambda fixed, _: np.zeros((*fixed.shape, 2), np.float32),
                                    "network": network(run, state),
                                    "demons": lambda fixed, moving: demons(fixed, moving, chosen)}
    found: dict[str, Any] = {**machine.hardware(), "versions": machine.versions(), "demons": chosen,
                             "SimpleITK": metadata.version("SimpleITK"), "step": int(state.step)}
    kinds = {"planted": planted(run, regions)}
    if IMAGES.value:
        kinds["real"] = real(run, regions, Path(IMAGES.value))
    for kind, pairs in kinds.items():
        found[kind], found["antspyx"] = compared(list(pairs), methods)
    target = Path(JSON.value or RESULT)
    write_atomically(target, json.dumps(found, indent=1) + "\n")
    print(f"written: {target}; next: python -m benchmarks.scores --tables")


if __name__ == "__main__":
    app.run(main)
