"""How far a restoration may be wrong: the spread of several predictions of one image, and intervals that were calibrated.

Asked for in one way by all commands, `--uncertainty=`: "flips", "dropout:N", the folders of further runs (an ensemble), any
of these together, or "constant".
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from itertools import chain, combinations
from pathlib import Path
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from medjax import registry
from medjax.files import write_atomically
from medjax.infer.predict import Predict, hash_of
from medjax.measures.intervals import Calibration
from medjax.models.dropout import dropout_in_use
from medjax.tasks._restoration import HALF_WIDTH, Restoration
from medjax.train.run import DATA, Run, may_change, restore_best
from medjax.types import (
    Array,
    Example,
    Key,
    Mean,
    NetworkInput,
    Objective,
    Params,
    Prediction,
    Record,
    State,
    Tree,
    UserError,
    Variables,
)

FILE = "intervals.json"
FLIPS, CONSTANT, DROPOUT = "flips", "constant", "dropout:"
Asked = tuple[str, ...]


def flag() -> flags.FlagHolder:
    """Defines the flag `--uncertainty`."""
    return flags.DEFINE_list(
        "uncertainty", [], "Of restorations, calibrated on the validation part by eval.py. What their spread is that of: "
        f"{FLIPS} of the input, {DROPOUT}N predictions with dropout, folders of runs that differ from this one in their "
        f"seed, or several of these; or {CONSTANT}: none, intervals of one width.")


@dataclass(frozen=True)
class Spread:
    """An objective whose prediction is the mean over flipped inputs, over members and over draws, with their standard
    deviation.

    `flips` are sets of spatial axes, each flipped in the input and back in the prediction; parameters and variables are
    those of a member by its number (deep ensembles: Lakshminarayanan et al. 2017; test-time flips: Wang et al. 2019). Of
    `draws`, where there are any, each leaves out other features (`medjax.models.dropout`). The predictions are compared as
    the task compares them with a truth.
    """

    task: Restoration
    objective: Objective
    flips: tuple[tuple[int, ...], ...]
    draws: int = 0
    networks: ClassVar[Mapping[str, str]] = {}
    players: tuple[str, ...] = field(init=False)
    predictors: tuple[str, ...] = field(init=False)
    batches: int = field(init=False)

    def __post_init__(self) -> None:
        for name in ("networks", "players", "predictors", "batches"):
            object.__setattr__(self, name, getattr(self.objective, name))

    def init(self, key: Key, example: Example) -> tuple[dict[str, Params], dict[str, Variables]]:
        """Those of the objective itself."""
        return self.objective.init(key, example)

    def losses(self, params: dict[str, Params], player: str, variables: dict[str, Variables], example: Example,
               key: Key) -> tuple[dict[str, Mean], dict[str, Variables]]:
        """Those of the objective itself."""
        return self.objective.losses(params, player, variables, example, key)

    def predict(self, params: dict[str, Params], variables: dict[str, Variables], given: NetworkInput,
                keys: Key) -> Prediction:
        """The mean and the standard deviation; 0 where there is one prediction alone."""
        turned = jax.tree.map(lambda *images: jnp.stack(images), *(_flipped(given, axes) for axes in self.flips))
        members = jax.tree.map(lambda *leaves: jnp.stack(leaves), *((params[m], variables[m]) for m in params))

        def of_member(member: tuple[Tree, Tree]) -> Array:
            return jax.lax.map(lambda one: self._drawn(member, one, keys), turned)

        made = jax.lax.map(of_member, members)  # (members, flips, draws, B, *space, C)
        made = jnp.stack([_flip(made[:, i], axes, 3) for i, axes in enumerate(self.flips)], 1)
        made = made.reshape(-1, *made.shape[3:])
        compared = jax.vmap(self.task.compared)(made)
        std = compared.std(0, ddof=1) if len(made) > 1 else jnp.zeros(compared.shape[1:], compared.dtype)
        return Prediction(made.mean(0), std)

    def _drawn(self, member: tuple[Tree, Tree], given: NetworkInput, keys: Key) -> Array:
        """A member's predictions `(draws, B, *space, C)`; one, with all features, where there are no draws."""
        if not self.draws:
            return self.objective.predict(*member, given, keys).image[None]

        def draw(number: Array) -> Array:
            own = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
            with dropout_in_use(own):
                return self.objective.predict(*member, given, own).image

        return jax.lax.map(draw, jnp.arange(self.draws))


def restore(workdir: Path, asked: Asked) -> tuple[Run, State]:
    """The run in `workdir` with its best checkpoint; where an uncertainty is `asked` for, one whose predictions have it.

    Raises UserError where the task has no such uncertainty, or a member is of another config, other data or this very run.
    """
    run, state = restore_best(workdir)
    if not asked:
        return run, state
    task = run.task
    if not isinstance(task, Restoration) or not task.has_intervals:
        raise UserError("--uncertainty", f"a run of {run.config.task.name} has none; intervals are those of restorations "
                        "that are compared with a truth")
    if CONSTANT in asked and len(asked) > 1:
        raise UserError("--uncertainty", f"{','.join(asked)}; {CONSTANT} goes with nothing else")
    axes = task.flip_axes if FLIPS in asked else ()
    if FLIPS in asked and not axes:
        raise UserError("--uncertainty=flips", f"a flipped image is not what {run.config.task.name} would measure; give the "
                        "folders of runs with other seeds: --uncertainty=RUN2,RUN3")
    members = [state, *(_member(run, workdir, Path(word)) for word in asked if _is_folder(word))]
    uses = [member.for_use() for member in members]
    numbered = [{str(i): use[kind] for i, use in enumerate(uses)} for kind in (0, 1)]
    flips = tuple(chain.from_iterable(combinations(axes, n) for n in range(len(axes) + 1)))
    spread = Spread(task, run.objective, flips, _draws(run, asked))
    return replace(run, objective=spread), replace(state, params=numbered[0], variables=numbered[1], ema={})


def _draws(run: Run, asked: Asked) -> int:
    """How many predictions with dropout are asked for, 0 for none. Raises UserError for a run without dropout."""
    words = [word for word in asked if word.startswith(DROPOUT)]
    if not words:
        return 0
    count = words[0].removeprefix(DROPOUT)
    if len(words) > 1 or not count.isdecimal() or int(count) < 2:
        raise UserError("--uncertainty", f"{','.join(words)}; give one number of predictions, 2 or more, as {DROPOUT}16")
    if not any(run.config[name].get("dropout", 0) for name in run.objective.predictors):
        raise UserError(f"--uncertainty={words[0]}", "the run was trained without dropout; train one with "
                        "--config.model.dropout=0.1")
    return int(count)


def _is_folder(word: str) -> bool:
    return word not in (FLIPS, CONSTANT) and not word.startswith(DROPOUT)


def _member(run: Run, workdir: Path, folder: Path) -> State:
    """The state of another run of the same config and data. Raises UserError."""
    if folder.resolve() == workdir.resolve():
        raise UserError("--uncertainty", f"{folder} is the run itself; give others")
    if not folder.is_dir():
        raise UserError("--uncertainty", f"{folder} is no folder; choose {FLIPS}, {DROPOUT}N, {CONSTANT} or folders "
                        "of runs")
    other, state = restore_best(folder)
    one, two = registry.flat(run.config), registry.flat(other.config)
    differing = [key for key in sorted(one | two) if key != "seed" and not may_change(key) and one.get(key) != two.get(key)]
    if differing:
        key = differing[0]
        raise UserError(folder, f"config.{key} is {two.get(key)} here and {one.get(key)} in {workdir}; members differ in "
                        "their seed alone")
    notes = [(path / DATA).read_text(encoding="utf-8") for path in (workdir, folder) if (path / DATA).exists()]
    if len(set(notes)) > 1:
        raise UserError(folder, f"its data or split is not that of {workdir}: patients to test on may have been trained on")
    return state


def _flipped(given: NetworkInput, axes: tuple[int, ...]) -> NetworkInput:
    return jax.tree.map(lambda image: _flip(image, axes, 1), given)


def _flip(image: Array, axes: tuple[int, ...], first: int) -> Array:
    """An array flipped along spatial `axes`, of which 0 is its axis `first`."""
    return jnp.flip(image, [axis + first for axis in axes]) if axes else image


def identity_of(state: State, asked: Asked) -> dict[str, Any]:
    """What a calibration holds for: the uncertainty, and a hash of the networks."""
    return {"uncertainty": name_of(asked), "networks": hash_of(state)}


def name_of(asked: Asked) -> str:
    """The uncertainty in a word: "flips", "dropout:16", "constant", or the members' folders."""
    return "+".join(Path(word).name if _is_folder(word) else word for word in asked)


def calibrations(workdir: Path) -> list[dict[str, Any]]:
    """What was calibrated of a run, each with its identity."""
    path = workdir / FILE
    if not path.exists():
        return []
    try:
        found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(path, f"is damaged ({error}); remove it, and calibrate again with eval.py") from error
    return found


def calibration_of(workdir: Path, identity: Mapping[str, Any]) -> Calibration | None:
    """The calibration that was kept for these networks, and this data where `identity` says it; None where there is none."""
    for entry in calibrations(workdir):
        if identity.items() <= entry.items():
            return Calibration(**entry["calibration"])
    return None


def keep_calibration(workdir: Path, identity: Mapping[str, Any], calibration: Calibration) -> None:
    """Writes it into the run's folder, in the place of an earlier one of this uncertainty."""
    others = [entry for entry in calibrations(workdir) if entry["uncertainty"] != identity["uncertainty"]]
    write_atomically(workdir / FILE, json.dumps([*others, {**identity, "calibration": asdict(calibration)}], indent=1))


def with_intervals(predict: Predict, run: Run, state: State, workdir: Path, asked: Asked) -> Predict:
    """As `predict`, with the half-width of the interval in physical units among the extras, and a calibrated `std`.

    Raises UserError where eval.py has not calibrated it.
    """
    known = calibration_of(workdir, identity_of(state, asked))
    if known is None:
        raise UserError("--uncertainty", f"{','.join(asked)} is not calibrated for this checkpoint; first: python eval.py "
                        f"--workdir={workdir} --uncertainty={','.join(asked)}")
    calibration, (low, high) = known, run.task.data_range

    def found(record: Record) -> Prediction:
        made = predict(record)
        assert made.std is not None
        spread = np.asarray(made.std) * np.float32(high - low)
        std: Tree = (calibration.std(spread) / (high - low)).astype(np.float32)
        width: Tree = calibration.half_width(spread).astype(np.float32)
        return replace(made, std=std, extras={**made.extras, HALF_WIDTH: width})

    return found
