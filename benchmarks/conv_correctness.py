"""Values and gradients of the convolutions against XLA's, over random shapes; takes about ten minutes.

    python benchmarks/conv_correctness.py [--shapes=300] [--json=benchmarks/results/conv_correctness.json]
"""

import functools
import json
import os
import platform
from pathlib import Path
from random import Random

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from tqdm import tqdm

from medjax.ops.conv import conv, conv_transpose

SHAPES = flags.DEFINE_integer("shapes", 300, "How many random shapes.")
JSON = flags.DEFINE_string("json", "benchmarks/results/conv_correctness.json", "Where the result is written.")
ALLOWED = {"float32": 2e-6, "bfloat16": 1e-2}


def random_case(rng: Random) -> dict:
    """Shapes and options of one convolution whose result is not empty."""
    n = rng.choice((1, 2, 2, 3))
    groups = rng.choice((1, 1, 1, 2, 4))
    c_in, c_out = (groups * rng.choice((1, 2, 3, 8, 16, 17, 32)) for _ in range(2))
    kernel = [rng.randint(1, 5 if n < 3 else 3) for _ in range(n)]
    dilation = [rng.choice((1, 1, 1, 2, 3)) for _ in range(n)]
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    space = [r + rng.randint(0, 12 if n < 3 else 6) for r in reach]
    pairs = [(rng.randint(0, r - 1), rng.randint(0, r - 1)) for r in reach]
    return {"transposed": rng.random() < 0.3, "batch": rng.randint(1, 4), "space": space, "kernel": kernel,
            "c_in": c_in, "c_out": c_out, "groups": groups, "dilation": dilation,
            "stride": [rng.choice((1, 1, 2, 3)) for _ in range(n)], "padding": rng.choice(("SAME", "VALID", pairs))}


def operands(case: dict, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    channels = (case["c_out"], case["c_in"]) if case["transposed"] else (case["c_in"], case["c_out"])
    w = rng.normal(size=(*case["kernel"], channels[0] // case["groups"], channels[1]))
    return rng.normal(size=(case["batch"], *case["space"], case["c_in"])), w


def value_and_gradients(case: dict, backend: str, x: jax.Array, w: jax.Array) -> list[np.ndarray]:
    os.environ["MEDJAX_CONV"] = backend  # read when the program below is compiled
    options = {k: case[k] for k in ("stride", "dilation", "padding", "groups")}

    def run(x, w):
        y, vjp = jax.vjp(functools.partial(conv_transpose if case["transposed"] else conv, **options), x, w)
        return y, *vjp(jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape).astype(y.dtype))
    compiled = jax.jit(run).lower(x, w).compile()
    return [np.asarray(v, np.float64) for v in compiled(x, w)]


def error_of(case: dict, seed: int, dtype: str) -> float:
    """Largest difference of the value and the two gradients, relative to their largest values; NaN where one is NaN."""
    x, w = (jnp.asarray(v, dtype) for v in operands(case, seed))
    got = value_and_gradients(case, "onednn", x, w)
    want = value_and_gradients(case, "xla", x.astype(jnp.float32), w.astype(jnp.float32))
    return float(np.max([np.abs(g - v).max() / max(np.abs(v).max(), 1e-30) for g, v in zip(got, want, strict=True)]))


def main(_):
    rng, worst, passed = Random(0), {}, True  # the shapes follow from the seed
    for seed in tqdm(range(SHAPES.value), unit="shape"):
        case = random_case(rng)
        for dtype in ALLOWED:
            error = error_of(case, seed, dtype)
            passed = passed and error <= ALLOWED[dtype]
            if dtype not in worst or error > worst[dtype]["error"]:
                worst[dtype] = {"error": error, **case}
    report = {"hardware": platform.processor() or platform.machine(), "jax": jax.__version__, "shapes": SHAPES.value,
              "allowed": ALLOWED, "worst": worst, "passed": passed}
    Path(JSON.value).parent.mkdir(parents=True, exist_ok=True)
    Path(JSON.value).write_text(json.dumps(report, indent=1))
    for dtype, allowed in ALLOWED.items():
        print(f"{dtype}: worst relative error {worst[dtype]['error']:.2g}, allowed {allowed:.2g}")
    print("passed" if passed else "FAILED")
    raise SystemExit(0 if passed else 1)


if __name__ == "__main__":
    app.run(main)
