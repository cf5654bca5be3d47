"""Cone-beam CT beside MBIRJAX: projection, back-projection and FDK: seconds, memory, and errors of both.

    python -m benchmarks.cone_vs_mbirjax --peer=PYTHON --json=benchmarks/results/cone_vs_mbirjax.json

PYTHON has mbirjax (`benchmarks/mbirjax.lock`). Every operation runs in a process of its own, the sides in turns; a first
call, which compiles, does not count. The object is the Shepp-Logan head in three dimensions, whose exact line integrals,
averaged over each detector element, both are compared with; and a ball, for values of FDK inside.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.physics_vs_peers import relative, row, table
from medjax.bench.machine import hardware, versions
from medjax.physics.analytic import Ellipsoids, shepp_logan
from medjax.physics.cone import Cone
from medjax.physics.ct import angles

OPERATIONS = ("forward", "back", "fdk")
PARTS = 3  # of an element or a voxel along each side, for its mean


def geometry(size: int, views: int) -> Cone:
    """A full circle of views of a cube of `size` mm, magnified twice onto a panel that its inscribed cylinder shadows."""
    panel = (2 * round(0.58 * size), 2 * round(0.52 * size))
    return Cone((size,) * 3, 1.0, angles(views, 360), panel, 2.0, 4.0 * size, 8.0 * size)


def means_of_elements(cone: Cone, thing: Ellipsoids) -> np.ndarray:
    """The exact line integrals `(views, rows, columns)`, the mean over every element."""
    rows, columns = cone.detectors
    (v, u), theta = ((np.arange(n * PARTS) + 0.5) / PARTS - n / 2 for n in (rows, columns)), np.asarray(cone.angles)
    u, v = u[None, :] * cone.pitch_mm[1], v[:, None] * cone.pitch_mm[0]
    found = []
    for t in theta:
        c, s = np.cos(t), np.sin(t)
        source = np.array([s, -c, 0.0])[:, None, None] * cone.source_mm
        far = cone.detector_distance_mm
        along = np.stack(np.broadcast_arrays(u * c - far * s, u * s + far * c, v))
        exact = thing.line_integrals(source, along)
        found.append(exact.reshape(rows, PARTS, columns, PARTS).mean((1, 3)))
    return np.stack(found).astype(np.float32)


def call(cone: Cone, operation: str) -> Callable[[jax.Array], jax.Array]:
    return {"forward": cone.__call__, "back": cone.adjoint, "fdk": cone.fbp}[operation]


def alone(args: argparse.Namespace) -> None:
    """medjax's side: what cone_peer.py does."""
    folder = Path(args.folder)
    given = dict(np.load(folder / "given.npz"))
    cone = geometry(len(given["volume"]), len(given["angles"]))
    x = jnp.asarray(given[{"forward": "volume", "back": "noise", "fdk": "exact"}[args.alone]])[None, ..., None]
    run = jax.jit(call(cone, args.alone))
    found = jax.block_until_ready(run(x))
    marks = [(time.perf_counter(), time.process_time())]
    for _ in range(args.calls):
        jax.block_until_ready(run(x))
        marks.append((time.perf_counter(), time.process_time()))
    np.save(folder / f"medjax_{args.alone}.npy", np.asarray(found)[0, ..., 0])
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    peak = int(status["VmHWM"].split()[0]) / 1024  # `ru_maxrss` counts the parent's memory before the exec
    seconds, cpu_seconds = np.diff(np.array(marks), axis=0).T.tolist()
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_mib": peak, "versions": versions()}))


def measured(folder: Path, peer: str, calls: int, turns: int) -> dict[str, dict]:
    """What each side's processes say, by operation and side."""
    found: dict[str, dict] = {}
    commands = {"medjax": [sys.executable, "-m", "benchmarks.cone_vs_mbirjax", f"--folder={folder}", f"--calls={calls}"],
                "mbirjax": [peer, str(Path(__file__).with_name("cone_peer.py")), str(folder)]}
    for operation in OPERATIONS:
        for turn in range(turns):
            for side in sorted(commands, reverse=turn % 2 == 1):
                own = [f"--alone={operation}"] if side == "medjax" else [operation, str(calls)]
                ended = subprocess.run([*commands[side], *own], cwd=Path(__file__).parents[1], text=True, check=True,
                                       stdout=subprocess.PIPE)
                said = json.loads(ended.stdout.splitlines()[-1])
                whole = found.setdefault(operation, {}).setdefault(side, {"seconds": [], "cpu_seconds": [], "peak_mib": 0.0})
                for key in ("seconds", "cpu_seconds"):
                    whole[key] += said[key]
                whole["peak_mib"] = max(whole["peak_mib"], said["peak_mib"])
                found.setdefault("versions", {}).update(said["versions"])
    return found


def errors(folder: Path, cone: Cone, given: dict[str, np.ndarray]) -> list[dict]:
    """How far results are from the exact ones, relative in the 2-norm, and whether back-projection is the transpose."""
    rows = []
    for side in ("medjax", "mbirjax"):
        forward, back, fdk = (np.load(folder / f"{side}_{operation}.npy").astype(np.float64) for operation in OPERATIONS)
        own = 0.1 if side == "medjax" else None
        rows += [row(f"{side}: forward, against exact means", relative(forward, given["exact"]), own),
                 row(f"{side}: <Ax, y> - <x, A'y>", adjointness(forward, back, given), 1e-6 if own else None),
                 row(f"{side}: FDK of the head", relative(fdk, given["volume"]), None)]
    x, y = (jnp.asarray(given[name])[None, ..., None] for name in ("volume", "exact"))
    gradient = jax.jit(jax.grad(lambda x: 0.5 * jnp.sum(jnp.square(cone(x) - y))))(x)
    rows.append(row("medjax: gradient of |Ax - y|^2 / 2, against A'(Ax - y)",
                    relative(gradient, jax.jit(lambda x: cone.adjoint(cone(x) - y))(x)), 1e-6))
    return [*rows, *ball(cone)]


def adjointness(forward: np.ndarray, back: np.ndarray, given: dict[str, np.ndarray]) -> float:
    """Relative to the norms."""
    left, right = np.vdot(forward, given["noise"]), np.vdot(given["volume"], back)
    return float(abs(left - right) / (np.linalg.norm(forward) * np.linalg.norm(given["noise"])))


def ball(cone: Cone) -> list[dict]:
    """FDK of a ball of 1 per mm from exact integrals: its values inside, 3 voxels and more from the surface."""
    size = cone.shape[0]
    radius = 0.4 * size
    thing = Ellipsoids(np.zeros((1, 3)), np.full((1, 3), radius), np.zeros(1), np.ones(1))
    volume = np.asarray(jax.jit(cone.fbp)(jnp.asarray(means_of_elements(cone, thing))[None, ..., None]))[0, ..., 0]
    place = np.mgrid[:size, :size, :size] - (size - 1) / 2
    inside = np.sqrt(np.square(place).sum(0)) < radius - 3
    error = volume[inside].astype(np.float64) - 1
    return [row("medjax: FDK inside a ball, root mean square", float(np.sqrt(np.square(error).mean())), 1e-2)]


def main() -> None:
    args = arguments()
    if args.alone:
        alone(args)
        return
    cone = geometry(args.size, args.views)
    head = shepp_logan(0.9 * args.size / 2, ndim=3)
    random = np.random.default_rng(0)
    given = {"volume": head.image(cone.shape, cone.spacing, PARTS)[..., 0], "exact": means_of_elements(cone, head),
             "noise": random.normal(size=(args.views, *cone.detectors)).astype(np.float32), "angles": np.array(cone.angles)}
    scalars = {"source_mm": cone.source_mm, "detector_mm": cone.detector_distance_mm, "pitch_mm": cone.pitch_mm[0]}
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "given.npz", **given, **scalars)
        found = measured(Path(folder), args.peer, args.calls, args.turns)
        used = found.pop("versions")
        rows = []
        for operation in OPERATIONS:
            ours, theirs = (found[operation][side] for side in ("medjax", "mbirjax"))
            ratio = np.median(ours["cpu_seconds"]) / np.median(theirs["cpu_seconds"])
            rows += [row(f"{operation}: processor seconds over MBIRJAX's", ratio, 0.6),
                     row(f"{operation}: memory over MBIRJAX's", ours["peak_mib"] / theirs["peak_mib"], 1.0)]
        rows += errors(Path(folder), cone, given)
    print(table(rows))
    out = {"size": args.size, "views": args.views, "rows": rows, "times": found, "hardware": hardware(), "versions": used}
    Path(args.json).parent.mkdir(parents=True, exist_ok=True)
    Path(args.json).write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default="", help="a Python with mbirjax")
    parser.add_argument("--json", default="benchmarks/results/cone_vs_mbirjax.json")
    parser.add_argument("--size", type=int, default=128, help="voxels along each axis")
    parser.add_argument("--views", type=int, default=180)
    parser.add_argument("--calls", type=int, default=1, help="timed calls of a process")
    parser.add_argument("--turns", type=int, default=2, help="processes of each side and operation")
    parser.add_argument("--alone", choices=OPERATIONS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
