"""`bench pipeline`: patches per second out of stored volumes, beside TorchIO's queue and MONAI's cached data set."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from medjax import registry
from medjax.bench.peer import Peer
from medjax.bench.timing import alternate, clock, spread
from medjax.data.pipeline import train_stream
from medjax.data.split import Region
from medjax.train.run import load_splits
from medjax.types import Record, UserError

PEERS = {"torchio": "torchio_patches", "monai": "monai_patches"}
VOLUMES, SHAPE, PATCH, BATCH = 20, (160, 192, 160), (64, 64, 64), 8


def measure(config: ConfigDict | None, peer: str, python: str, workers: int, seconds: float,
            report: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One row: milliseconds per patch. Without a config, of 20 synthetic int16 volumes. Raises UserError."""
    if peer and peer not in PEERS:
        raise UserError("--peer", f"{peer} has no pipeline; there is {', '.join(PEERS)}")
    if config:
        if peer:
            raise UserError("--peer", "peers read the synthetic volumes; leave out --config")
        data = config.data
        stream = train_stream(load_splits(config)["train"], batch_size=config.batch_size, patch=registry.frozen(data.patch),
                              ndim=data.ndim, workers=data.workers, foreground=data.foreground)
        yield _row(stream, config.batch_size, None, "", data.workers, seconds)
        return
    with tempfile.TemporaryDirectory() as folder:
        files = write_volumes(Path(folder))
        regions = [Region.whole(Record(np.load(file, mmap_mode="r")[..., None], file.stem, file.stem)) for file in files]
        stream = train_stream(regions, batch_size=BATCH, patch=PATCH, ndim=3, workers=workers)
        if not peer:
            yield _row(stream, BATCH, None, "", workers, seconds)
            return
        with Peer(PEERS[peer], python) as other:
            report["versions"] |= other.versions
            facts = other.call("build", files=[str(file) for file in files], patch=PATCH, batch=BATCH)
            yield _row(stream, BATCH, other, peer, workers, seconds) | {"peer_setup": facts}


def write_volumes(folder: Path) -> list[Path]:
    """The synthetic volumes, int16 `.npy` files `(D, H, W)`."""
    random = np.random.default_rng(0)
    files = [folder / f"volume{n:02d}.npy" for n in range(VOLUMES)]
    for file in files:
        np.save(file, random.integers(-1000, 3000, SHAPE, np.int16))
    return files


def _row(stream: Any, batch: int, other: Peer | None, peer: str, workers: int, seconds: float) -> dict[str, Any]:
    contestants = [clock(lambda: next(stream))]
    if other:
        contestants.append(lambda steps: other.call("run", steps=steps))
    try:
        own, *others = [times / batch for times in alternate(contestants, seconds, block_ms=2000, look=64)]
    finally:
        stream.close()
    ms = float(own.mean())  # a reader that works ahead gives batches in bursts: the mean is its rate, the median is not
    row = {"name": "pipeline", "dtype": "int16", "medjax_ms": ms, "peer_ms": None, "ratio": None, "peer": peer,
           "patches_per_s": 1e3 / ms, "medjax_spread_ms": spread(own.mean(1)), "workers": workers, "batch": batch}
    if others:
        row["peer_ms"] = float(others[0].mean())
        row |= {"ratio": ms / row["peer_ms"], "peer_patches_per_s": 1e3 / row["peer_ms"],
                "peer_spread_ms": spread(others[0].mean(1))}
    return row
