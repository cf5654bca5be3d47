"""CT and MRI operators beside astra, scikit-image and sigpy: how far apart they are, and how long they take.

    python benchmarks/physics_vs_peers.py --peer=.peers/bin/python --output=benchmarks/results/physics_vs_peers.json

The peers run in a Python of their own (`pip install astra-toolbox sigpy scikit-image`); it and this one take turns.
"""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from medjax.bench.machine import hardware, versions
from medjax.bench.timing import alternate, clock, spread
from medjax.ops.fft import fft
from medjax.physics import mri, nufft
from medjax.physics.analytic import shepp_logan
from medjax.physics.ct import Parallel, angles
from medjax.physics.espirit import espirit

SIZE, VIEWS, HEAD, COILS, SPOKES = 512, 360, 256, 8, 400
CT = Parallel((SIZE, SIZE), 1.0, angles(VIEWS), SIZE, 1.0)


def main() -> None:
    args = arguments()
    given = inputs()
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "given.npz", **given)
        command = [args.peer, "-W", "ignore", str(Path(__file__).with_name("physics_peer.py")), folder]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peer:
            peer_versions = json.loads(peer.stdout.readline())
            found = dict(np.load(Path(folder) / "found.npz"))
            rows = differences(given, found) + times(given, found, peer, args.seconds)
            peer.stdin.close()
    print(table(rows))
    out = {"rows": rows, "hardware": hardware(), "versions": versions() | peer_versions}
    Path(args.output).parent.mkdir(parents=True, exist_ok=True)
    Path(args.output).write_text(json.dumps(out, indent=1) + "\n", encoding="utf-8")


def inputs() -> dict[str, np.ndarray]:
    """What both sides are given: a head, noise, coil maps, and a radial trajectory with golden-angle spokes."""
    random = np.random.default_rng(0)
    head = shepp_logan(HEAD / 2).image((HEAD, HEAD), (1.0, 1.0), 8)[..., 0]
    maps = np.array(mri.birdcage(COILS, (HEAD, HEAD)))
    phase = np.array(mri.smooth_phase(jax.random.key(0), (HEAD, HEAD), 0.5))
    coil_images = (maps * head * phase).astype(np.complex64)
    kspace = np.array(fft(jnp.asarray(coil_images), 2))
    kspace += 1e-3 * (random.normal(size=kspace.shape) + 1j * random.normal(size=kspace.shape))
    return {
        "head": head, "image": shepp_logan(SIZE / 2).image((SIZE, SIZE), (1.0, 1.0))[..., 0],
        "sinogram": random.normal(size=(VIEWS, SIZE)).astype(np.float32),
        "maps": maps, "mask": np.array(mri.random_lines(jax.random.key(0), (HEAD, HEAD), 4.0)),
        "complex_image": (head * phase).astype(np.complex64), "coils": coil_images, "kspace": kspace.astype(np.complex64),
        "trajectory": nufft.radial(SPOKES, 2 * HEAD, HEAD),
    }


def differences(given, found) -> list[dict]:
    """How far results lie apart, relative in the 2-norm, and how good the reconstructions are, in dB."""
    ours = jax.jit(CT)(given["image"][None, ..., None])[0, ..., 0]
    back = jax.jit(CT.adjoint)(given["sinogram"][None, ..., None])[0, ..., 0]
    exact = shepp_logan(SIZE / 2).line_integrals(*CT.rays())
    rows = [
        row("parallel forward, against astra", relative(ours, found["sinogram"]), 2e-4),
        row("parallel adjoint, against astra", relative(back, found["back"]), None),
        row("parallel forward, against the analytic sinogram", relative(ours, exact), 7e-3),
    ]
    disc = np.hypot(*(np.mgrid[:HEAD, :HEAD] - (HEAD - 1) / 2)) < HEAD / 2 - 1
    for views in (180, 360):
        A = Parallel((HEAD, HEAD), 1.0, angles(views), HEAD, 1.0)
        image = jax.jit(lambda x, A=A: A.fbp(A(x)))(given["head"][None, ..., None])[0, ..., 0]
        own = psnr(image, given["head"], disc)
        for peer, bar in (("astra", -0.1), ("skimage", -0.6)):
            gain = own - psnr(found[f"{peer}_fbp_{views}"], given["head"], disc)
            rows.append(row(f"FBP of {views} views, dB above {peer}'s", gain, bar) | {"psnr": own})

    A = mri.Cartesian(jnp.asarray(given["maps"])[None], jnp.asarray(given["mask"])[None, None])
    rows.append(row("multi-coil Cartesian, against sigpy's Sense",
                    relative(A(given["complex_image"][None, ..., None])[0], found["sense"]), 1e-6))
    some = np.random.default_rng(1).choice(len(given["trajectory"]), 100, replace=False)
    exact = fourier_sums(given["coils"], given["trajectory"][some])
    samples = jax.jit(nufft.nufft)(given["coils"], nufft.plan(given["trajectory"], (HEAD, HEAD)))
    for name, values in (("medjax", samples), ("sigpy", found["nufft_default"]), ("sigpy, as exact", found["nufft_exact"])):
        error = relative(np.asarray(values)[:, some], exact)
        rows.append(row(f"NUFFT of {name}, against Fourier sums", error, 3e-5 if name == "medjax" else None))
    maps = np.asarray(espirit(given["kspace"]))
    rows.append(row("ESPIRiT maps, against sigpy's", relative(maps, found["espirit"]), None))
    return rows


def times(given, found, peer, seconds) -> list[dict]:
    """Milliseconds per image, and the ratio to the peer's, which does one image at a time."""
    rows = []
    for batch in (1, 8):
        x = jnp.tile(given["image"][None, ..., None], (batch, 1, 1, 1))
        y = jnp.tile(given["sinogram"][None, ..., None], (batch, 1, 1, 1))
        bars = {"forward": 1.0, "back": 0.5} if batch == 1 else {"forward": 0.4, "back": 0.2}
        for name, fn, v in (("forward", CT, x), ("back", CT.adjoint, y)):
            compiled = jax.jit(fn).lower(v).compile()
            memory = compiled.memory_analysis().temp_size_in_bytes / 1e6
            title = f"parallel {name}, batch {batch}, over astra"
            timed = compare(title, compiled, v, batch, peer, name, bars[name], seconds)
            rows += [timed | {"temporary_megabytes": memory}]
            if batch == 8:
                rows.append(row(f"parallel {name}, batch 8, temporary MB", memory, 64))
    A = mri.Cartesian(jnp.asarray(given["maps"])[None], jnp.asarray(given["mask"])[None, None])
    rows.append(compare("multi-coil Cartesian, over sigpy", jax.jit(lambda x: A(x)),
                        jnp.asarray(given["complex_image"])[None, ..., None], 1, peer, "sense", None, seconds))
    plan = nufft.plan(given["trajectory"], (HEAD, HEAD))
    for name, fn, v in (("nufft forward", nufft.nufft, given["coils"]),
                        ("nufft adjoint", nufft.nufft_adjoint, found["nufft_default"])):
        step = jax.jit(lambda v, fn=fn: fn(v, plan))
        rows.append(compare(f"{name}, over sigpy", step, jnp.asarray(v), 1, peer, name, 1.0, seconds))
        exact = f"{name}, as exact"
        rows.append(compare(f"{name}, over sigpy as exact", step, jnp.asarray(v), 1, peer, exact, None, seconds))
    return rows


def compare(name: str, step: Callable, v: jax.Array, batch: int, peer, work: str, bar, seconds: float) -> dict:
    """Ours and the peer's in turns."""
    def peers(steps: int) -> list[float]:
        peer.stdin.write(f"{work} {steps}\n")
        peer.stdin.flush()
        return json.loads(peer.stdout.readline())

    ours, theirs = alternate([clock(lambda: jax.block_until_ready(step(v))), peers], seconds)
    own = float(np.median(ours)) / batch
    return row(name, own / float(np.median(theirs)), bar) | {
        "medjax_ms": own, "peer_ms": float(np.median(theirs)),
        "medjax_spread_ms": spread(ours) / batch, "peer_spread_ms": spread(theirs)}


def row(name: str, value, bar) -> dict:
    """A result with its bar: at most, or for a negative bar (dB) at least."""
    met = None if bar is None else bool(value >= bar if bar < 0 else value <= bar)
    return {"name": name, "value": float(value), "bar": bar, "met": met}


def relative(a, b) -> float:
    a, b = np.asarray(a).ravel(), np.asarray(b).ravel()
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def psnr(image, truth, where) -> float:
    return float(10 * np.log10(1 / np.mean(np.square(np.asarray(image) - truth)[where])))


def fourier_sums(images, trajectory) -> np.ndarray:
    """The orthonormal Fourier transform at points of k-space, summed in float64."""
    rows, columns = (np.exp(-2j * np.pi * np.outer(trajectory[:, a], np.arange(HEAD) - HEAD // 2) / HEAD) for a in (0, 1))
    return np.einsum("mi,mj,cij->cm", rows, columns, images.astype(complex), optimize=True) / HEAD


def table(rows: list[dict]) -> str:
    lines = [f"{'':56}{'value':>10}{'bar':>9}  "]
    for r in rows:
        bar = "" if r["bar"] is None else f"{r['bar']:.2g}"
        verdict = "" if r["met"] is None else "met" if r["met"] else "MISSED"
        lines.append(f"{r['name']:56}{r['value']:10.3g}{bar:>9}  {verdict}")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", required=True, help="a Python with astra-toolbox, sigpy and scikit-image")
    parser.add_argument("--output", default="benchmarks/results/physics_vs_peers.json")
    parser.add_argument("--seconds", type=float, default=10, help="for each timed row, both sides together")
    return parser.parse_args()


if __name__ == "__main__":
    main()
