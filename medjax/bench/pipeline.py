"""`bench pipeline`: patches per second out of stored volumes, beside TorchIO's queue and MONAI's cached data set."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from medjax import registry
from medjax.bench.cases import parse_patch, parse_sizes
from medjax.bench.peer import Peer
from medjax.bench.table import Report, Row
from medjax.bench.timing import Contestant, alternate, clock, spread
from medjax.data.pipeline import Stream, train_stream
from medjax.train.run import load_splits
from medjax.types import Record, Region, UserError

PEERS = {"torchio": "torchio_patches", "monai": "monai_patches"}
SHAPE, PATCH, BATCH = (160, 192, 160), (64, 64, 64), 8


@dataclass(frozen=True)
class Source:
    """What is read: `batch` patches at a time of a run's training images, or without a config of synthetic volumes."""

    config: ConfigDict | None
    batch: int
    patch: tuple[int, ...]
    volumes: int
    workers: int


def source(config: ConfigDict | None, batches: Sequence[str], patches: Sequence[str], volumes: int, workers: int) -> Source:
    """The source that the flags ask for. Raises UserError."""
    for flag, given in (("--batch", batches), ("--patch", patches)):
        if len(given) > 1:
            raise UserError(flag, f"{','.join(given)}; the pipeline is measured with one size")
    batch = parse_sizes("--batch", batches[0], 1)[0] if batches else config.batch_size if config else BATCH
    ndim = config.data.ndim if config else len(SHAPE)
    patch = parse_patch(patches[0], ndim) if patches else registry.frozen(config.data.patch) if config else PATCH
    if config is None and any(size > whole for size, whole in zip(patch, SHAPE, strict=True)):
        raise UserError("--patch", f"{'x'.join(map(str, patch))} is larger than the volumes, {'x'.join(map(str, SHAPE))}")
    return Source(config, batch, patch, volumes, config.data.workers if config else workers)


def measure(source: Source, peer: str, python: str, seconds: float, report: Report) -> Iterator[Row]:
    """One row: milliseconds per patch. Raises UserError."""
    if peer and peer not in PEERS:
        raise UserError("--peer", f"unknown {peer!r}; choose from {', '.join(PEERS)}")
    if source.config:
        if peer:
            raise UserError("--peer", "peers read the synthetic volumes; leave out --config")
        data = source.config.data
        stream = train_stream(load_splits(source.config)["train"], batch_size=source.batch, patch=source.patch,
                              ndim=data.ndim, workers=source.workers, foreground=data.foreground)
        yield _row(stream, source, None, "", seconds)
        return
    with tempfile.TemporaryDirectory() as folder:
        files = write_volumes(Path(folder), source.volumes)
        regions = [Region.whole(Record(np.load(file, mmap_mode="r")[..., None], file.stem, file.stem)) for file in files]
        stream = train_stream(regions, batch_size=source.batch, patch=source.patch, ndim=3, workers=source.workers)
        if not peer:
            yield _row(stream, source, None, "", seconds)
            return
        with Peer(PEERS[peer], python) as other:
            report.versions |= other.versions
            setup = other.call("build", files=[str(file) for file in files], patch=source.patch, batch=source.batch)
            yield _row(stream, source, other, peer, seconds) | {"peer_setup": setup}


def write_volumes(folder: Path, count: int) -> list[Path]:
    """`count` synthetic volumes, int16 `.npy` files `(D, H, W)`."""
    random = np.random.default_rng(0)
    files = [folder / f"volume{n:02d}.npy" for n in range(count)]
    for file in files:
        np.save(file, random.integers(-1000, 3000, SHAPE, np.int16))
    return files


def _row(stream: Stream, source: Source, other: Peer | None, peer: str, seconds: float) -> Row:
    contestants: list[Contestant] = [clock(lambda: next(stream))]
    if other:
        contestants.append(lambda steps: other.call("run", steps=steps))
    try:
        own, *others = [times / source.batch for times in alternate(contestants, seconds, block_ms=2000, look=64)]
    finally:
        stream.close()
    ms = float(own.mean())  # a reader that works ahead gives batches in bursts: the mean is its rate, the median is not
    row: Row = {"name": "pipeline", "dtype": "int16", "medjax_ms": ms, "peer_ms": None, "ratio": None, "peer": peer,
                "patches_per_s": 1e3 / ms, "medjax_spread_ms": spread(own.mean(1)), "workers": source.workers,
                "batch": source.batch, "patch": source.patch, "volumes": None if source.config else source.volumes}
    if others:
        peer_ms = float(others[0].mean())
        row |= {"peer_ms": peer_ms, "ratio": ms / peer_ms, "peer_patches_per_s": 1e3 / peer_ms,
                "peer_spread_ms": spread(others[0].mean(1))}
    return row
