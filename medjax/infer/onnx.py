"""An exported run as ONNX, by jax2onnx, checked in onnxruntime."""

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from medjax.infer.export import LIMIT, Call, Exported, Function, Program, Shape, difference
from medjax.ops.conv import jax_convolutions
from medjax.types import UserError

OPSET = 18
PACKAGES = ("jax2onnx", "onnx", "onnxruntime")


def convert(program: Program, size: tuple[int, ...] = ()) -> Exported:
    """The program as ONNX (opset `OPSET`) for one image at a time: of any size if jax2onnx can, else of `size`.

    What jax2onnx 0.17 makes of a free batch holds its size in some reshapes. Raises UserError where packages are missing,
    and where nothing that jax2onnx makes agrees with the live program in onnxruntime.
    """
    missing = [name for name in PACKAGES if not importlib.util.find_spec(name)]
    if missing:
        raise UserError("--formats", f"onnx needs {', '.join(missing)}; install them as docs/export.md says")
    problem = ""
    size = program.size or size
    forms = [program] * (not program.size) + [program.at(size)] * bool(size)
    for form in forms:
        shapes = tuple((1, *port.shape) for port in form.inputs)
        try:
            with silent():
                data = converted(form.function, shapes, [port.name for port in form.inputs], form.output.name)
                call = onnxruntime(data)
                far = max(difference(form, call, 1, larger) for larger in (0, 1))
        except Exception as error:  # whatever the packages raise is the reason why this form can't be had
            problem = " ".join(str(error).split())[:200] or type(error).__name__
            continue
        if far <= LIMIT:
            return Exported("onnx", data, shapes, far, {"opset": OPSET})
        problem = f"its results differ from the model's by {far:.2g} of the range"
    advice = "leave onnx out of --formats" if size else "give the size of the images, e.g. --size=256,256"
    raise UserError("--formats", f"jax2onnx can't convert this network ({problem}); {advice}")


def onnxruntime(data: bytes, threads: int = 0) -> Call:
    """The model as onnxruntime runs it on CPU, on so many threads; 0 leaves them to onnxruntime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def call(arrays: Sequence[np.ndarray]) -> np.ndarray:
        found: np.ndarray = session.run(None, dict(zip(names, arrays, strict=True)))[0]
        return found

    return call


def converted(function: Function, shapes: Sequence[Shape], inputs: Sequence[str], output: str) -> bytes:
    """A function of float32 arrays of these shapes as ONNX. jax2onnx raises what it likes for what it can't convert."""
    from jax2onnx import to_onnx

    with jax_convolutions(planes=True):
        model = to_onnx(lambda *arrays: function(*arrays), list(shapes), opset=OPSET, model_name="medjax",
                        input_names=list(inputs), output_names=[output])
    data: bytes = model.SerializeToString()
    return data


@contextmanager
def silent() -> Iterator[None]:
    """Without what jax2onnx logs of its own examples, for which it looks for other packages, and of each layer."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
