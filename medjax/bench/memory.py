"""`bench memory`: what a train step will hold on each device, from the compiled program, before anyone trains."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import ShapeDtypeStruct
from ml_collections import ConfigDict

from medjax import registry
from medjax.bench import cases
from medjax.bench.cases import Case, Given
from medjax.data.augment import Augment
from medjax.objectives.supervised import Supervised
from medjax.train import sharding
from medjax.train.run import assemble
from medjax.train.step import init_state, make_step
from medjax.types import UserError


@dataclass(frozen=True)
class Plan:
    """A train step on shapes alone: `config` is a run's, None for a suite."""

    case: Case
    dtype: str
    mesh: tuple[int, int]
    config: ConfigDict | None = None


def plans(config: ConfigDict | None, suites: list[str], dtypes: list[str], batches: list[str], patches: list[str],
          meshes: list[str]) -> Iterator[Plan]:
    """Every combination that the flags ask for, on as many devices as the largest mesh needs. Raises UserError."""
    chosen = [cases.from_config(config)] if config else cases.suites(suites)
    shapes = [_sizes("--mesh", mesh, 2) for mesh in meshes]
    _imagine_devices(max(data * space for data, space in shapes))
    variants = [replace(case, batch=batch, patch=patch) for case in chosen
                for batch in ([_sizes("--batch", b, 1)[0] for b in batches] or [case.batch])
                for patch in ([_sizes("--patch", p, case.ndim) for p in patches] or [case.patch])]
    return (Plan(case, dtype, mesh, config) for case in variants for dtype in dtypes for mesh in shapes)


def measure(plan: Plan) -> dict[str, Any]:
    """The row of one plan; megabytes are those of one device."""
    case = plan.case
    start, step, batch, mesh = (_run_step if plan.config else _suite_step)(plan)
    sharding.check_batch(mesh, case.batch, plan.config.accumulate if plan.config else 1)
    state = jax.eval_shape(start, batch, jax.random.PRNGKey(0))
    one = sharding.replicated(mesh)
    placed = [jax.tree.map(lambda leaf: ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=one), state),
              {name: ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)
               for (name, leaf), place in zip(batch.items(), sharding.batch_sharding(mesh, batch).values(), strict=True)}]
    options = sharding.compiler_options(plan.config.remat if plan.config else "none")
    memory = jax.jit(step, donate_argnums=0, compiler_options=options).lower(*placed).compile().memory_analysis()
    megabytes = {"arguments_mb": memory.argument_size_in_bytes / 2**20, "temporaries_mb": memory.temp_size_in_bytes / 2**20,
                 "output_mb": (memory.output_size_in_bytes - memory.alias_size_in_bytes) / 2**20}
    return {"name": case.name, "dtype": plan.dtype, "batch": case.batch, "patch": case.patch, "mesh": plan.mesh,
            **megabytes, "total_mb": sum(megabytes.values())}


Step = tuple[Callable[..., Any], Callable[..., Any], dict[str, ShapeDtypeStruct], jax.sharding.Mesh]


def _suite_step(plan: Plan) -> Step:
    case = plan.case
    fine = [size * s for size, s in zip(case.patch, case.scale, strict=True)]
    batch = {name: ShapeDtypeStruct((case.batch, *size, case.channels), jnp.float32)
             for name, size in (("input", case.patch), ("target", fine))}
    parts = (Given(), Supervised(Given(), case.network(plan.dtype)), {"model": optax.adam(1e-3)}, 0.0)
    return partial(init_state, *parts), make_step(*parts), batch, sharding.make_mesh(*plan.mesh)


def _run_step(plan: Plan) -> Step:
    """The step of a run, with its task, objective and optimizers; images are stored as int16."""
    case, config = plan.case, ConfigDict(plan.config.to_dict())
    config.data.channels, config.data.range = case.channels, tuple(config.data.range) or (0.0, 1.0)
    config.mesh.data, config.mesh.space = plan.mesh
    config.batch_size, config.model.dtype = case.batch, cases.DTYPES[plan.dtype]
    run = assemble(config)
    fine = [size * s for size, s in zip(case.patch, case.scale, strict=True)]
    batch = {"image": ShapeDtypeStruct((case.batch, *fine, case.channels), jnp.int16),
             "id": ShapeDtypeStruct((case.batch,), jnp.uint32),
             **{name: ShapeDtypeStruct((case.batch,), jnp.float32) for name in ("slope", "intercept", "count")}}
    parts = (run.task, run.objective, run.optimizers, config.ema_decay)
    step = make_step(*parts, Augment(**registry.frozen(config.augment)), config.accumulate, remat=config.remat)
    return partial(init_state, *parts), step, batch, sharding.make_mesh(*plan.mesh)


def _sizes(flag: str, text: str, count: int) -> tuple[int, ...]:
    parts = text.split("x")
    if len(parts) != count or not all(part.isdecimal() and int(part) for part in parts):
        raise UserError(flag, f"{text!r} is not {count} sizes like {'x'.join(['8'] * count)}")
    return tuple(int(part) for part in parts)


def _imagine_devices(count: int) -> None:
    """On a CPU, as many devices as `count` stand in for the pod's: they compile the same program."""
    if count > 1:
        jax.config.update("jax_num_cpu_devices", count)
    if count > len(jax.devices()):
        raise UserError("--mesh", f"{count} devices asked for, {len(jax.devices())} of {jax.default_backend()} are here; "
                        "set JAX_PLATFORMS=cpu to imagine them")
