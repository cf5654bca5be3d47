"""`bench latency`: how long inputs take one by one, NumPy array to NumPy array: the network live, exported, as ONNX."""

import importlib.util
from collections.abc import Callable, Iterator
from functools import partial

import jax
import numpy as np

from medjax.bench import machine
from medjax.bench.cases import Case
from medjax.bench.table import Report, Row
from medjax.bench.timing import alternate, clock
from medjax.infer import onnx
from medjax.infer.export import Function, lowered

PERCENTILES = (50, 95, 99)
Run = Callable[[np.ndarray], np.ndarray]


def measure(cases: list[Case], dtypes: list[str], seconds: float, report: Report) -> Iterator[Row]:
    """One row per case, dtype and form; `report` gets onnxruntime's version where it is installed."""
    if importlib.util.find_spec("onnxruntime"):
        import onnxruntime

        report.versions["onnxruntime"] = onnxruntime.__version__
    for case in cases:
        for dtype in dtypes:
            yield from _rows(case, dtype, seconds)


def _rows(case: Case, dtype: str, seconds: float) -> Iterator[Row]:
    network = case.network(dtype)
    image = np.random.default_rng(0).random((case.batch, *case.patch, case.channels), np.float32)
    variables = jax.jit(network.init)(jax.random.key(0), image)
    function: Function = partial(network.apply, variables)
    compiled = jax.jit(function).lower(image).compile()
    forms: dict[str, Run] = {"live": lambda x: np.asarray(compiled(x)), "stablehlo": _exported(function, image)}
    found, note = _in_onnx(function, image)
    if found is not None:
        forms["onnx"] = found
    wanted = forms["live"](image)
    far = {form: float(np.abs(run(image) - wanted).max() / np.ptp(wanted)) for form, run in forms.items()}
    times = alternate([clock(partial(run, image)) for run in forms.values()], seconds)
    for form, own in zip(forms, times, strict=True):
        levels = dict(zip(PERCENTILES, np.percentile(own, PERCENTILES), strict=True))
        yield {**_facts(case, dtype), "form": form, **{f"p{level}_ms": float(ms) for level, ms in levels.items()},
               "per_s": 1e3 * case.batch / float(own.mean()), "runs": own.size, "difference": far[form]}
    if note:
        yield {**_facts(case, dtype), "form": "onnx", "note": note}
    jax.clear_caches()


def _facts(case: Case, dtype: str) -> Row:
    return {"name": case.name, "dtype": dtype, "batch": case.batch, "patch": case.patch, "model": case.model.to_dict()}


def _exported(function: Function, image: np.ndarray) -> Run:
    """The function as `medjax.export` writes it, read again and compiled."""
    data = bytes(lowered(function, image.shape).serialize())
    compiled = jax.jit(jax.export.deserialize(bytearray(data)).call).lower(image).compile()
    return lambda x: np.asarray(compiled(x))


def _in_onnx(function: Function, image: np.ndarray) -> tuple[Run | None, str]:
    """The function in onnxruntime, on as many threads as the others; or None, and why there is none."""
    missing = [name for name in onnx.PACKAGES if not importlib.util.find_spec(name)]
    if missing:
        return None, f"no {', '.join(missing)}; `make onnx` installs them"
    try:
        with onnx.silent():
            call = onnx.onnxruntime(onnx.converted(function, [image.shape], ["image"], "made"), machine.threads())
            call([image])
    except Exception as error:  # whatever the packages raise is the reason why this form can't be had
        return None, f"jax2onnx can't convert it: {' '.join(str(error).split()).partition('. ')[0][:200]}"
    return lambda x: call([x]), ""
