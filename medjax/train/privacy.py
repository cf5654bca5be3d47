"""Differential privacy of the patients of training: DP-SGD (Abadi et al., CCS 2016), whose unit is the patient.

Each step draws every patient by chance, bounds the gradient of each one's samples together, and adds Gaussian noise to their
sum. The state after any number of steps then is (epsilon, delta)-differentially private for adding or removing all images
of one patient, as `medjax.measures.privacy` counts it.
"""

import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from scipy import stats

from medjax import registry
from medjax.data.key import BYTES, Key
from medjax.data.patients import Drawing
from medjax.files import make_private
from medjax.measures.privacy import epsilon, noise_for
from medjax.train import distributed
from medjax.types import Array, Batch, Mean, Objective, Splits, State, Tree, UserError
from medjax.types import Key as NoiseKey

FILE = "privacy.key"
OVERFLOW = 1e-20  # how likely a batch draws more patients than it has room for: far below any delta
Config: TypeAlias = ml_collections.ConfigDict


@dataclass(frozen=True)
class Privacy:
    """What `config.privacy` says; off while `epsilon` and `noise` are 0.

    `epsilon` is the most that may be spent at `delta` by `config.steps`. `noise` is the standard deviation of the noise in
    units of `clip`; 0 takes the least that keeps `epsilon`. `clip` bounds the norm of the gradient of one patient, who is in
    a step by `samples` slices or patches. `config.batch_size` is the mean number of patients in a step.
    """

    epsilon: float = 0.0
    delta: float = 1e-5
    noise: float = 0.0
    clip: float = 1.0
    samples: int = 1


@dataclass(frozen=True)
class Plan:
    """How the `patients` of a run are protected: `batch` of them are in a step on average, `width` pass at a time."""

    noise: float
    clip: float
    delta: float
    samples: int
    patients: int
    batch: int
    width: int

    @property
    def rate(self) -> float:
        """The probability that a patient is in a step."""
        return self.batch / self.patients

    @property
    def chunks(self) -> int:
        """How many times `width` patients a step has room for."""
        most = max(self.batch, int(stats.binom.isf(OVERFLOW, self.patients, self.rate)))
        return math.ceil(min(most, self.patients) / self.width)

    def drawing(self, seed: int) -> Drawing:
        """How batches are drawn."""
        return Drawing(self.rate, self.samples, self.chunks, self.width, seed)

    def spent(self, steps: int) -> float:
        """Epsilon after so many steps."""
        return epsilon(self.rate, self.noise, steps, self.delta)

    def facts(self, steps: int) -> dict[str, float]:
        """What results say of it after so many steps."""
        return {"epsilon": self.spent(steps), "delta": self.delta, "steps": steps, "noise": self.noise, "clip": self.clip,
                "patients": self.patients, "rate": self.rate}


def is_private(config: Config) -> bool:
    """Whether a config asks for privacy; configs of earlier versions don't have the keys."""
    return "privacy" in config and bool(config.privacy.epsilon or config.privacy.noise)


def plan_of(config: Config) -> Plan | None:
    """The plan of a resolved config; None for one without privacy."""
    if not is_private(config):
        return None
    asked = config.privacy
    return Plan(float(asked.noise), float(asked.clip), float(asked.delta), asked.samples, asked.patients, config.batch_size,
                config.batch_size // config.accumulate)


def resolve(config: Config, splits: Splits, saved: Config | None) -> None:
    """Fills in the number of patients and the noise of a private `config`, those of the run that is `saved`.

    Raises UserError for what can't be private, for a budget that can't be kept, and where a resumed run has other patients.
    """
    asked = config.privacy
    if asked.samples < 1 or asked.clip <= 0 or asked.epsilon < 0 or asked.noise < 0:
        raise UserError("config.privacy", "give samples of 1 or more, a clip above 0, epsilon and noise of 0 or more")
    if not config.data.range:
        raise UserError("config.data.range", "would be taken from the training images, which is not private; give it: "
                        "--config.data.range='(LOW,HIGH)'")
    subjects = {region.record.subject for region in splits["train"]}
    if subjects & {region.record.subject for name in ("val", "test") for region in splits[name]}:
        raise UserError("config.privacy", "fewer than three patients: their images are in all parts, so none can be private "
                        "to training; give more patients")
    asked.patients = len(subjects)
    if saved is not None and is_private(saved):
        if saved.privacy.patients != asked.patients:
            raise UserError("config.data", f"has {asked.patients} patients to train on where the run began with "
                            f"{saved.privacy.patients}, for whom privacy is counted; put those back, or begin another run")
        asked.noise = asked.noise or saved.privacy.noise
    if not 0 < asked.delta < 1 / asked.patients:
        raise UserError("config.privacy.delta", f"{asked.delta:g}; give a number above 0 and below 1 / {asked.patients}, "
                        "one over the number of patients")
    if config.batch_size > asked.patients:
        raise UserError("config.batch_size", f"{config.batch_size}, but there are {asked.patients} patients to train on; "
                        "with privacy it is the mean number of patients in a step, give at most as many")
    _fill_noise(config)


def _fill_noise(config: Config) -> None:
    """Chooses the noise that keeps the budget, or checks that of the config. Raises UserError."""
    asked, rate = config.privacy, config.batch_size / config.privacy.patients
    if not asked.noise:
        asked.noise = noise_for(asked.epsilon, rate, config.steps, asked.delta)
        if math.isinf(asked.noise):
            raise UserError("config.privacy.epsilon", f"{asked.epsilon:g} can't be kept over {config.steps} steps: noise "
                            "of a hundred times the clip spends more; give a larger one, fewer steps, or more patients")
    elif asked.epsilon:
        spent = epsilon(rate, asked.noise, config.steps, asked.delta)
        if spent > asked.epsilon:
            raise UserError("config.steps", f"{config.steps} steps with noise {asked.noise:g} spend epsilon {spent:.4g}, "
                            f"more than config.privacy.epsilon={asked.epsilon:g}; give fewer steps, or in a new run more "
                            "noise")


def describe(config: Config) -> list[str]:
    """The plan in words, a line or none."""
    plan = plan_of(config)
    if plan is None:
        return []
    return [f"privacy of {plan.patients} patients, each in a step with probability {plan.rate:.3g}: gradients of norm "
            f"{plan.clip:g} at most, noise of {plan.noise:g} times that on their sum; {stated(plan.facts(config.steps))}"]


def stated(facts: Mapping[str, float]) -> str:
    """What `Plan.facts` says of privacy, in words."""
    return f"epsilon {facts['epsilon']:.3g} at delta {facts['delta']:g} after {facts['steps']} steps"


def check(objective: Objective, state: State) -> None:
    """Raises UserError where a run can't be private: several networks that see the patients, or statistics of batches."""
    if len(set(objective.players)) > 1 or objective.batches > 1:
        raise UserError("config.objective.name", f"{type(objective).__name__} trains several networks on the same patients; "
                        "with config.privacy choose one that trains one network")
    kept = sorted({name for found in state.variables.values() for name, tree in found.items() if jax.tree.leaves(tree)})
    if kept:
        raise UserError("config.model", f"the network keeps {', '.join(kept)} of its batches, which no noise protects; with "
                        "config.privacy give --config.model.norm another value than batch, or another network")


def secret_of(workdir: Path) -> Key:
    """The secret of a run, of which its noise and its draws are made: that in its folder, else a new one, not yet kept."""
    path = workdir / FILE
    key = Key(b"")
    if distributed.is_primary():
        key = Key.of(path) if path.exists() else Key(secrets.token_bytes(BYTES))
    return Key(bytes.fromhex(distributed.broadcast_from_primary(key.secret.hex())))


def keep_secret(workdir: Path, key: Key) -> None:
    """Writes the secret to the run's folder, readable for its owner alone: a run that is resumed draws as it would have."""
    make_private(workdir / FILE, key.secret)


def noise_key(key: Key) -> np.ndarray:
    """The key of JAX's random numbers, `(2,)` uint32, that the noise is made of."""
    seed = key.seed("privacy noise")
    return np.array([seed >> 32, seed & 0xFFFFFFFF], np.uint32)


def patient_gradient(terms_of: Callable[[Tree, Batch], dict[str, Mean]], params: Tree, batch: Batch, plan: Plan,
                     key: NoiseKey, axis: str | None) -> tuple[Array, dict[str, Array], Tree]:
    """Loss, its terms and the private gradient of a batch as `Drawing` lays it out.

    The gradient of the mean of each patient's loss is clipped to the norm `plan.clip`; their sum, with noise of standard
    deviation `plan.noise * plan.clip` by `key`, is divided by the mean number of patients `plan.batch`. Loss and terms are
    means over the patients that were drawn, and as little private as "clipped", the share that was bounded. Gradients of
    one chunk, each as large as the network, are in memory at one time; chunks without a patient are passed over. `axis` as
    in `make_step`.
    """
    if axis:
        params = jax.tree.map(lambda a: jax.lax.pcast(a, axis, to="varying"), params)
    rows = jax.tree.map(lambda a: jnp.moveaxis(a.reshape(-1, plan.chunks, plan.samples, *a.shape[1:]), 1, 0), dict(batch))

    def loss_of(own: Tree, rows: Batch) -> tuple[Array, dict[str, Array]]:
        terms = {name: mean.value for name, mean in terms_of(own, rows).items()}
        return sum(terms.values(), jnp.zeros(())), terms

    def of_patient(rows: Batch) -> tuple[Array, Tree]:
        (loss, terms), grads = jax.value_and_grad(loss_of, has_aux=True)(params, rows)
        present = (rows["count"] > 0).any()
        return present, jax.tree.map(lambda a: jnp.where(present, a, 0), (loss, terms, grads))

    def of_chunk(rows: Batch) -> dict[str, Any]:
        present, (losses, terms, grads) = jax.vmap(of_patient)(rows)
        leaves, structure = jax.tree.flatten(grads)
        clipped, count = optax.per_example_global_norm_clip(leaves, plan.clip)
        return {"present": present.sum(), "loss": losses.sum(), "terms": jax.tree.map(jnp.sum, terms), "clipped": count,
                "grads": jax.tree.unflatten(structure, clipped)}

    def add(sums: dict[str, Any], rows: Batch) -> tuple[dict[str, Any], None]:
        any_drawn = (rows["count"] > 0).any()
        return jax.lax.cond(any_drawn, lambda: jax.tree.map(jnp.add, sums, of_chunk(rows)), lambda: sums), None

    shapes = jax.eval_shape(of_chunk, jax.tree.map(lambda a: a[0], rows))
    nothing = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
    if axis:
        nothing = jax.tree.map(lambda a: jax.lax.pcast(a, axis, to="varying"), nothing)
    sums, _ = jax.lax.scan(add, nothing, rows)
    if axis:
        sums = jax.lax.psum(sums, axis)
    drawn = jnp.maximum(sums["present"], 1)
    terms = {name: value / drawn for name, value in sums["terms"].items()} | {"clipped": sums["clipped"] / drawn}
    return sums["loss"] / drawn, terms, _noisy(sums["grads"], plan, key)


def _noisy(total: Tree, plan: Plan, key: NoiseKey) -> Tree:
    """A sum of clipped gradients as the noisy mean over the patients of a step."""
    leaves, structure = jax.tree.flatten(total)
    keys = jax.random.split(key, len(leaves))
    spread = plan.noise * plan.clip
    return jax.tree.unflatten(structure, [(leaf + spread * jax.random.normal(own, leaf.shape, leaf.dtype)) / plan.batch
                                          for leaf, own in zip(leaves, keys, strict=True)])


def default() -> Config:
    """The keys of `config.privacy`."""
    return registry.keywords(Privacy)
