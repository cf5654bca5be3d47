"""`bench step` and `bench infer`: a network's train step or forward pass, beside its equal elsewhere."""

from collections.abc import Iterator
from contextlib import ExitStack

import jax
import numpy as np

from medjax.bench import machine, programs
from medjax.bench.cases import Case
from medjax.bench.peer import Peer
from medjax.bench.table import Report, Row
from medjax.bench.timing import Contestant, alternate, clock, spread
from medjax.types import UserError

PEERS = ("torch", "xla")
Setup = dict[str, object]
"""What the peer says of its program: its parameters' count, its memory format, its threads."""


def measure(cases: list[Case], dtypes: list[str], mode: str, peer: str, python: str, seconds: float,
            report: Report) -> Iterator[Row]:
    """One row per case and dtype. `report` gets the machine's matrix peak and the peer's versions. Raises UserError."""
    if peer and peer not in PEERS:
        raise UserError("--peer", f"unknown {peer!r}; choose from {', '.join(PEERS)}")
    with ExitStack() as stack:
        torch = stack.enter_context(Peer("torch_steps", python)) if peer == "torch" else None
        report.versions |= torch.versions if torch else {}
        peaks = {dtype: _peak(dtype, torch) for dtype in dtypes}
        report.hardware["matrix_gflops"] = {dtype: round(peak / 1e9, 1) for dtype, peak in peaks.items()}
        for case in cases:
            for dtype in dtypes:
                yield _row(case, dtype, mode, peer, torch, seconds, peaks[dtype])


def _peak(dtype: str, torch: Peer | None) -> float:
    return max(machine.matrix_peak(dtype), torch.call("matrix_peak", dtype=dtype) if torch else 0.0)


def _row(case: Case, dtype: str, mode: str, peer: str, torch: Peer | None, seconds: float, peak: float) -> Row:
    program = programs.build(case, dtype, mode)
    work = programs.flops(case, dtype, mode)
    contestants, setup = [clock(program.step)], Setup()
    if peer:
        other, setup = _opponent(case, dtype, mode, torch, program.params)
        contestants.append(other)
    own, *others = alternate(contestants, seconds)
    ms = float(np.median(own))
    row: Row = {"name": case.name, "mode": mode, "dtype": dtype, "medjax_ms": ms, "peer_ms": None, "ratio": None,
                "peer": peer, "medjax_spread_ms": spread(own), "images_per_s": 1e3 * case.batch / ms,
                "compile_s": program.compile_s, "memory_mb": program.memory_mb, "gflop": work / 1e9,
                "gflops": work / ms / 1e6, "share_of_peak": 1e3 * work / ms / peak, "params": program.params,
                "batch": case.batch, "patch": case.patch, "scale": case.scale, "model": case.model.to_dict(),
                "rounds": len(own)}
    if others:
        peer_ms = float(np.median(others[0]))
        per_round = np.median(own, 1) / np.median(others[0], 1)
        row |= {"peer_ms": peer_ms, "peer_spread_ms": spread(others[0]), "ratio": ms / peer_ms,
                "ratio_spread": spread(per_round), "peer_setup": setup}
    jax.clear_caches()
    return row


def _opponent(case: Case, dtype: str, mode: str, torch: Peer | None, params: int) -> tuple[Contestant, Setup]:
    """The same network elsewhere. Raises UserError where it has not as many parameters."""
    if torch is None:
        return clock(programs.build(case, dtype, mode, conv="xla").step), {}
    model = {key: value for key, value in case.model.to_dict().items() if key != "dtype"}
    setup: Setup = torch.call("build", mode=mode, model=model, ndim=case.ndim, channels=case.channels, scale=case.scale,
                              batch=case.batch, patch=case.patch, dtype=dtype)
    if setup["params"] != params:
        raise UserError(f"--suite={case.name}", f"PyTorch's network has {setup['params']} parameters and medjax's {params}; "
                        "mend medjax/bench/peers/networks.py")
    return lambda steps: torch.call("run", steps=steps), setup
