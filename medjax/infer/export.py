"""A trained run as one function of arrays, in physical units from end to end, and as StableHLO that JAX alone can run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from medjax.infer.predict import TILE, make_program
from medjax.ops.conv import jax_convolutions
from medjax.train.run import Run
from medjax.types import Array, Batch, Port, State, UserError

PLATFORMS = ("cpu", "cuda", "tpu")
LIMIT = 1e-4  # of the range; rounding alone makes a tenth of it where a network inverts an operator
MULTIPLES = (1, 2, 4, 8, 16, 32, 64, 128)
FREE = 8  # along axes that are free and none of space: coils
LEAST = {2: 32, 3: 16}  # voxels along each axis of the images that programs are checked on

Function = Callable[..., Array]
Arrays = list[np.ndarray]
Shape = tuple[int | str, ...]
Call = Callable[[Sequence[np.ndarray]], np.ndarray]


@dataclass(frozen=True)
class Program:
    """What a run does in use: `function` of arrays, one for each of `inputs`, to one array.

    `size` of the images is in whole numbers, or () where it is free; then the sizes are multiples of `multiple`. With `pads`
    an image of another size may be padded with its edge, and the result cut: it is what `apply` gives.
    """

    run: Run
    function: Function
    inputs: tuple[Port, ...]
    output: Port
    size: tuple[int, ...]
    multiple: int
    pads: bool

    def sizes(self, larger: int = 0) -> tuple[int, ...]:
        """Sizes of an image that it takes, no two axes alike where they are free; a `larger` one by as many multiples."""
        ndim = self.run.task.input_ndim
        first = -(-LEAST[ndim] // self.multiple) + larger
        return self.size or tuple((first + axis) * self.multiple for axis in range(ndim))

    def at(self, size: tuple[int, ...]) -> "Program":
        """The program for images of one size."""
        return replace(self, inputs=_ports(self.run, size), size=size, multiple=1, pads=False)

    def scale(self) -> tuple[int, ...]:
        """How many voxels of the result there are for one of the image, by axis; () where it has another grid."""
        size = self.sizes()
        shapes = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in self.example(size)]
        space = jax.eval_shape(self.function, *shapes).shape[1:-1]
        on_grid = self.inputs[0].shape[:-1] == (self.size or free(len(size), self.multiple))
        if not on_grid or len(space) != len(size) or any(made % given for made, given in zip(space, size, strict=True)):
            return ()
        return tuple(made // given for made, given in zip(space, size, strict=True))

    def example(self, size: tuple[int, ...], batch: int = 1) -> Arrays:
        """Random arrays that it takes."""
        random, found = np.random.default_rng(0), []
        for port in _ports(self.run, size):
            assert port.example is not None
            shape = (batch, *(n if isinstance(n, int) else FREE for n in port.shape))
            found.append(port.example(random, shape).astype(np.float32))
        return found


@dataclass(frozen=True)
class Exported:
    """A file with the program in a `format`: the shapes of its inputs, its largest difference to the live program, and what
    else is known of it.
    """

    format: str
    data: bytes
    shapes: tuple[Shape, ...]
    difference: float
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """The name of the file."""
        return f"model.{self.format}"


def make_exportable(run: Run, state: State, size: tuple[int, ...] = (), spacing_mm: float = 0.0) -> Program:
    """The program of a run, as large a part of all sizes of images as it can be exported for.

    Images may have any size, or multiples of the least number that the network can be traced for; in tasks whose images
    `apply` takes in tiles that is a multiple of `TILE`, as there. What takes one size alone gets `size`. `spacing_mm` is the
    voxel size, for tasks that depend on it and were trained on several. Raises UserError for what can't be exported.
    """
    ndim, output = run.task.input_ndim, run.task.exported_output(run.config.data.channels)
    if size and len(size) != ndim:
        raise UserError("--size", f"{len(size)} numbers, and the images have {ndim} axes; give one for each")
    problem: Exception = UserError("--size", "")
    for multiple in (m for m in MULTIPLES if not run.task.tileable or m >= TILE):
        try:
            ports = _ports(run, free(ndim, multiple))
            function = _function(run, state, (), ports, spacing_mm)
            program = Program(run, function, ports, output, (), multiple, run.task.tileable)
            _lowered(program)
            return _padded_alike(program)
        except Exception as error:  # JAX, Flax and networks say in many ways that sizes don't suit them
            problem = error
            if isinstance(error, UserError):
                break
    if not size:
        if isinstance(problem, UserError):
            raise problem
        raise UserError("--size", "the network takes images of one size alone; give it, e.g. --size=256,256") from problem
    ports = _ports(run, size)
    program = Program(run, _function(run, state, size, ports, spacing_mm), ports, output, size, 1, False)
    try:
        _lowered(program)
        return program
    except Exception as error:
        if isinstance(error, UserError):
            raise
        given = ",".join(map(str, size))
        raise UserError("--size", f"the network doesn't take images of {given}; give the size of those it was trained on "
                        f"({' '.join(str(error).split())[:200]})") from error


def free(ndim: int, multiple: int) -> tuple[str, ...]:
    """Sizes of images as a port has them: multiples of a number, along each axis."""
    return tuple(name if multiple == 1 else f"{multiple}*{name}" for name in "dhw"[-ndim:])


def stablehlo(program: Program) -> Exported:
    """The program as StableHLO for `PLATFORMS`, serialised by `jax.export`. Raises UserError where it is too far from it."""
    data = bytes(_lowered(program).serialize())
    exported = jax.export.deserialize(bytearray(data))
    far = difference(program, lambda arrays: np.asarray(exported.call(*arrays)))
    if far > LIMIT:
        raise UserError("model.stablehlo", f"its results differ from the model's by {far:.2g} of the range, more than "
                        f"{LIMIT:g}; nothing was written")
    return Exported("stablehlo", data, tuple(("b", *port.shape) for port in program.inputs), far,
                    {"platforms": list(PLATFORMS)})


def live(program: Program) -> Call:
    """The program as `apply` runs it in this process."""
    compiled = jax.jit(program.function)
    return lambda arrays: np.asarray(compiled(*arrays))


def difference(program: Program, call: Call, batch: int = 2, larger: int = 0) -> float:
    """The largest difference between `call` and the live program on `batch` random images, of a `larger` size on demand.

    It is a part of the range, or of the largest value where that is larger; probabilities are compared as they are.
    """
    arrays = program.example(program.sizes(larger), batch)
    wanted, made = live(program)(arrays), call(arrays)
    if wanted.shape != made.shape or not np.isfinite(wanted).all():
        return float("inf")
    return float(np.abs(made - wanted).max()) / max(_reach(program), float(np.abs(wanted).max()))


def _reach(program: Program) -> float:
    """The range of the values that come out."""
    low, high = program.run.task.data_range
    return high - low if program.output.unit == "{units}" else 1.0


def _ports(run: Run, size: Sequence[int | str]) -> tuple[Port, ...]:
    return run.task.exported_inputs(run.config.data.channels, size)


def _function(run: Run, state: State, size: tuple[int, ...], ports: Sequence[Port], spacing_mm: float) -> Function:
    """The run's program on arrays in physical units, the only ones of a batch that are not told already."""
    program, known = make_program(run, state), _spacing(run, spacing_mm)
    names = [port.name for port in ports]

    def function(*arrays: Array) -> Array:
        rows = jnp.ones(arrays[0].shape[0])
        batch: Batch = {"image": jnp.zeros((arrays[0].shape[0], *size, 1)), **dict(zip(names, arrays, strict=True)),
                        "slope": rows, "intercept": 0 * rows, "id": rows.astype(jnp.uint32), "count": rows,
                        "spacing_mm": rows[:, None] * known}
        return run.task.exported(program(batch, None), batch)

    return function


def _spacing(run: Run, given: float) -> np.ndarray:
    """The voxel size along each axis, `(1, ndim)`: as given, or that of all training images; NaN where it isn't known."""
    known = run.config.data.domain.spacing_mm
    value = given or (known[0] if known and np.isclose(*known) else float("nan"))
    if run.task.kind == "sinogram" and np.isnan(value):
        sizes = " to ".join(f"{size:g}" for size in known)
        raise UserError("--spacing", f"the run was trained on pixels of {sizes} mm, and the scanner that is exported has "
                        f"one size; give it, e.g. --spacing={known[0]:g}")
    return np.full((1, run.task.ndim), value, np.float32)


def _lowered(program: Program) -> jax.export.Exported:
    """The program for `PLATFORMS`, with symbols for the sizes that are free."""
    scope = jax.export.SymbolicScope()
    texts = [",".join(map(str, ("b", *port.shape))) for port in program.inputs]
    return lowered(program.function, *(jax.export.symbolic_shape(text, scope=scope) for text in texts))


def lowered(function: Function, *shapes: Sequence[Any]) -> jax.export.Exported:
    """A function of float32 arrays of these shapes, for `PLATFORMS`."""
    # A function of its own: what was traced before, with other convolutions, is not to be found again.
    with jax_convolutions():
        return jax.export.export(jax.jit(lambda *arrays: function(*arrays)), platforms=PLATFORMS)(
            *(jax.ShapeDtypeStruct(tuple(shape), jnp.float32) for shape in shapes))


def _padded_alike(program: Program) -> Program:
    """The program, with `pads` where padding an image's edge outside of it makes no difference to the result."""
    if program.multiple == 1 or program.pads:
        return program
    whole = program.sizes()
    arrays = program.example(whole)
    cut = (slice(None), *(slice(0, size - 1) for size in whole))
    odd = [array[cut] for array in arrays]
    pads = [(0, 0), *((0, 1) for _ in whole), (0, 0)]
    run = live(program)
    try:
        alone, padded = run(odd), run([np.pad(array, pads, mode="edge") for array in odd])
    except Exception:  # the network takes multiples alone
        return program
    if alone.ndim == padded.ndim == len(pads) and alone.shape != padded.shape:
        padded = padded[cut]
    alike = alone.shape == padded.shape and np.abs(alone - padded).max() <= 1e-5 * max(_reach(program), np.abs(alone).max())
    return replace(program, pads=bool(alike))
