"""`bench tiled`: a network on a volume in overlapping windows, beside MONAI's `sliding_window_inference`.

Both have the same weights, windows and blending, so that both make the same volume; how far apart they are is a column.
"""

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from medjax.bench.cases import Case
from medjax.bench.peer import Peer
from medjax.bench.table import Report, Row
from medjax.bench.timing import Contestant, alternate, clock, spread
from medjax.bench.twins import to_torch
from medjax.infer.tiling import OVERLAP, Arrays, fade, tiled
from medjax.types import Tree, UserError

WINDOWS = 3  # along each axis


def measure(cases: list[Case], dtypes: list[str], peer: str, python: str, seconds: float, report: Report) -> Iterator[Row]:
    """One row per case and dtype: milliseconds of a volume. Raises UserError."""
    if peer not in ("", "monai"):
        raise UserError("--peer", f"unknown {peer!r}; choose from monai")
    for case in cases:
        if case.patch != case.target_patch:
            raise UserError("--suite", f"{case.name} enlarges; MONAI blends windows otherwise there, so choose another")
    if not peer:
        yield from (_row(case, dtype, None, seconds) for case in cases for dtype in dtypes)
        return
    with Peer("monai_windows", python) as monai:
        report.versions |= monai.versions
        yield from (_row(case, dtype, monai, seconds) for case in cases for dtype in dtypes)


def _row(case: Case, dtype: str, monai: Peer | None, seconds: float) -> Row:
    network, window = case.network(dtype), case.patch
    space = tuple(size + (WINDOWS - 1) * round(size * (1 - OVERLAP)) for size in window)
    image = np.random.default_rng(0).random((*space, case.channels), np.float32)
    variables = jax.jit(network.init)(jax.random.key(0), np.zeros((1, *window, case.channels), np.float32))
    forward = jax.jit(lambda x: network.apply(variables, x))
    windows = 0

    def predict(tile: Arrays) -> Arrays:
        nonlocal windows
        windows += 1
        return {"image": jax.device_get(forward(tile["image"][None]))[0]}

    def apply() -> np.ndarray:
        return tiled(predict, {"image": image}, window)["image"]

    start = time.perf_counter()
    jax.block_until_ready(forward.lower(image[None, *map(slice, window)]).compile())
    compile_s = time.perf_counter() - start
    own = apply()
    row: Row = {"name": case.name, "mode": "tiled", "dtype": dtype, "peer": "", "peer_ms": None, "ratio": None,
                "window": window, "image": space, "windows": windows, "overlap": OVERLAP, "compile_s": compile_s,
                "params": sum(leaf.size for leaf in jax.tree.leaves(variables["params"])), "model": case.model.to_dict()}
    contestants: list[Contestant] = [clock(apply)]
    if monai:
        row |= _beside(case, dtype, monai, variables, image, own)
        contestants.append(lambda steps: monai.call("run", steps=steps))
    times, *others = alternate(contestants, seconds)
    ms = float(np.median(times))
    row |= {"medjax_ms": ms, "medjax_spread_ms": spread(times), "rounds": len(times),
            "mvoxels_per_s": np.prod(space) / ms / 1e3}
    if others:
        peer_ms = float(np.median(others[0]))
        per_round = np.median(times, 1) / np.median(others[0], 1)
        row |= {"peer_ms": peer_ms, "peer_spread_ms": spread(others[0]), "ratio": ms / peer_ms,
                "ratio_spread": spread(per_round)}
    jax.clear_caches()
    return row


def _beside(case: Case, dtype: str, monai: Peer, variables: Tree, image: np.ndarray, own: np.ndarray) -> Row:
    """MONAI on the same image with the same network: its settings, and how far it is from `own`, of the range."""
    setup = hand_over(monai, case.model, case.scale, case.patch, variables, image, dtype, fade=fade(case.patch)[..., 0])
    return {"peer": "monai", "peer_setup": setup, "difference": float(np.abs(own - made_by(monai)).max() / np.ptp(own))}


def hand_over(monai: Peer, model: ConfigDict, scale: Sequence[int], window: Sequence[int], variables: Tree,
              image: np.ndarray, dtype: str = "f32", **weights: np.ndarray) -> Row:
    """Gives MONAI a network with its arrays, the size of windows and an image `(*space, C)`; returns MONAI's settings.

    `weights` may have `fade`, those of a window's voxels; otherwise MONAI's own Gaussian ones blend the windows.
    """
    settings = {key: value for key, value in model.to_dict().items() if key != "dtype"}
    arrays: dict[str, Any] = {"image": _channels_first(image), **weights, **to_torch(model, scale, variables)}
    with tempfile.TemporaryDirectory() as folder:
        given = Path(folder) / "given.npz"
        np.savez(given, **arrays)
        setup: Row = monai.call("build", model=settings, ndim=len(window), channels=image.shape[-1], scale=scale,
                                window=window, overlap=OVERLAP, dtype=dtype, given=str(given))
    return setup


def made_by(monai: Peer, image: np.ndarray | None = None) -> np.ndarray:
    """What MONAI makes of the image that it was given, or of another one, `(*space, C)`."""
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "given.npy", Path(folder) / "made.npy"
        if image is not None:
            np.save(given, _channels_first(image))
        monai.call("save", path=str(made), image="" if image is None else str(given))
        return np.moveaxis(np.load(made)[0], 0, -1)


def _channels_first(image: np.ndarray) -> np.ndarray:
    return np.moveaxis(image, -1, 0)[None]
