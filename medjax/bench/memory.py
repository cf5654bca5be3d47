"""`bench memory`: what a train step will hold on each device, from the compiled program, before anyone trains."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import jax
import numpy as np
from jax import ShapeDtypeStruct
from jax.sharding import Mesh
from ml_collections import ConfigDict

from medjax import registry
from medjax.bench import cases
from medjax.bench.cases import Case
from medjax.bench.programs import analysed
from medjax.bench.table import Row
from medjax.data.augment import Augment
from medjax.data.pipeline import Stream, train_stream
from medjax.train import padding, sharding
from medjax.train.run import assemble
from medjax.train.step import init_state, make_step
from medjax.types import Array, Batch, Key, Record, Region, State, UserError

COMPILED_MODES = ("jit", "shard_map")


@dataclass(frozen=True)
class Plan:
    """A train step on shapes alone: `config` is a run's, None for a suite."""

    case: Case
    dtype: str
    mesh: tuple[int, int]
    config: ConfigDict | None = None


@dataclass(frozen=True)
class Step:
    """A train step, the state it starts from, and the shapes of a batch; how it is laid out over the mesh."""

    init: Callable[[Batch, Key], State]
    step: Callable[[State, Batch], tuple[State, dict[str, Array]]]
    batch: dict[str, ShapeDtypeStruct]
    mode: str = "jit"
    fsdp: bool = False
    offload: bool = False
    accumulate: int = 1
    remat: str = "none"


def plans(config: ConfigDict | None, suites: Sequence[str], dtypes: Sequence[str], batches: Sequence[str],
          patches: Sequence[str], meshes: Sequence[str]) -> Iterator[Plan]:
    """Every combination that the flags ask for, on as many devices as the largest mesh needs. Raises UserError."""
    chosen = cases.choose(config, suites, batches, patches)
    shapes = [(data, space) for data, space in (cases.parse_sizes("--mesh", mesh, 2) for mesh in meshes)]
    _imagine_devices(max(data * space for data, space in shapes))
    return (Plan(case, dtype, mesh, config) for case in chosen for dtype in dtypes for mesh in shapes)


def measure(plan: Plan) -> Row:
    """The row of one plan; megabytes are those of one device. Raises UserError.

    `arguments_mb` is there between steps, too: the state and a batch. `host_mb` is the optimizer's state that the config
    keeps in host memory; a step fetches it, so it counts among the step's `temporaries_mb`.
    """
    case = plan.case
    mesh = sharding.make_mesh(*plan.mesh)
    made = _suite_step(plan) if plan.config is None else _run_step(plan, plan.config)
    sharding.check_batch(mesh, case.batch, made.accumulate)
    state, places = _state(made, mesh)
    batch_places = sharding.batch_sharding(mesh, cast(Batch, made.batch))
    batch = {name: _placed(array, batch_places[name]) for name, array in made.batch.items()}
    step = cast(jax.stages.Wrapped, sharding.parallel(made.step, mesh, made.mode, places, made.remat))
    compiled = step.lower(jax.tree.map(_placed, state, places), batch).compile()
    memory = analysed(compiled.memory_analysis(), "memory")
    sizes = {"arguments_mb": memory.argument_size_in_bytes, "temporaries_mb": memory.temp_size_in_bytes,
             "output_mb": memory.output_size_in_bytes - memory.alias_size_in_bytes,
             "host_mb": memory.host_argument_size_in_bytes}
    if made.offload and not sizes["host_mb"]:  # XLA on a CPU has one memory, and nothing to fetch
        host = sum(map(_bytes_on_one, jax.tree.leaves(state.opt_state), jax.tree.leaves(places.opt_state)))
        sizes |= {"arguments_mb": sizes["arguments_mb"] - host, "temporaries_mb": sizes["temporaries_mb"] + host,
                  "host_mb": host}
    sizes["total_mb"] = sizes["arguments_mb"] + sizes["temporaries_mb"] + sizes["output_mb"]
    return {"name": case.name, "dtype": plan.dtype, "batch": case.batch, "patch": case.patch, "mesh": plan.mesh,
            **{name: size / 2**20 for name, size in sizes.items()}}


def _state(made: Step, mesh: Mesh) -> tuple[State, Any]:
    """The shapes of a run's state, and where its arrays lie."""
    sharding.check_mode(mesh, made.mode, made.fsdp, made.offload)
    if made.mode not in COMPILED_MODES:
        raise UserError("config.mesh.mode", f"bench memory cannot compile {made.mode!r} ahead; choose from "
                        f"{', '.join(COMPILED_MODES)}")
    state = jax.eval_shape(made.init, made.batch, jax.random.PRNGKey(0))
    places = sharding.state_sharding(mesh, state, made.fsdp)
    return state, sharding.offloaded(places) if made.offload else places


def _placed(array: ShapeDtypeStruct, place: jax.sharding.Sharding) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(array.shape, array.dtype, sharding=place)


def _bytes_on_one(array: ShapeDtypeStruct, place: jax.sharding.Sharding) -> int:
    return int(np.prod(place.shard_shape(array.shape))) * array.dtype.itemsize


def _suite_step(plan: Plan) -> Step:
    case, (_, space) = plan.case, plan.mesh
    if case.patch[0] % space:
        raise UserError("--patch", f"a first axis of {case.patch[0]} does not divide over {space} devices")
    batch = jax.eval_shape(case.images)
    parts = case.step_parts(plan.dtype)
    return Step(partial(init_state, *parts), make_step(*parts), batch)


def _run_step(plan: Plan, config: ConfigDict) -> Step:
    """The step of a run, with its task, objective and optimizers; images are stored as int16."""
    case, config = plan.case, ConfigDict(config.to_dict())
    config.data.channels, config.data.range = case.channels, tuple(config.data.range) or (0.0, 1.0)
    config.batch_size, config.model.dtype = case.batch, cases.DTYPES[plan.dtype]
    config.mesh.data, config.mesh.space = plan.mesh
    run, mesh = assemble(config), config.mesh
    first = _stream(case, 1).first()
    multiple = padding.multiple_of(run, first, mesh.space)
    if mesh.pad:
        first = _stream(case, multiple).first()
    else:
        padding.check_space(first["image"].shape[1], multiple, mesh.space)
    batch = {name: ShapeDtypeStruct((case.batch, *array.shape[1:]), array.dtype) for name, array in first.items()}
    parts = (run.task, run.objective, run.optimizers, config.ema_decay)
    step = make_step(*parts, Augment(**registry.frozen(config.augment)), config.accumulate,
                     None if mesh.mode == "jit" else "data", config.remat)
    return Step(partial(init_state, *parts), step, batch, mesh.mode, mesh.fsdp, mesh.offload, config.accumulate,
                config.remat)


def _stream(case: Case, multiple: int) -> Stream:
    """The pipeline's batches of one image that is as large as the target, its first axis padded to a multiple."""
    record = Record(np.zeros((*case.target_patch, case.channels), np.int16), "", "")
    return train_stream([Region.whole(record)], batch_size=1, patch=case.target_patch, ndim=case.ndim, multiple_of=multiple)


def _imagine_devices(count: int) -> None:
    """On a CPU, as many devices as `count` stand in for the pod's: they compile the same program."""
    if count > 1:
        jax.config.update("jax_num_cpu_devices", count)
    if count > len(jax.devices()):
        raise UserError("--mesh", f"{count} devices asked for, {len(jax.devices())} of {jax.default_backend()} are here; "
                        "set JAX_PLATFORMS=cpu to imagine them")
