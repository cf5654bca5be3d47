"""PyTorch's side of `bench step` and `bench infer`: eager on CPU, compiled on CUDA, in the faster memory format."""

import os
import time
from collections.abc import Callable
from typing import Any

import networks
import torch
from torch.nn import functional

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def versions() -> dict[str, str]:
    """PyTorch's version."""
    return {"torch": torch.__version__}


class Peer:
    """A network and its optimizer, built by `build`, run by `run`."""

    def __init__(self) -> None:
        if hasattr(os, "sched_getaffinity"):
            torch.set_num_threads(len(os.sched_getaffinity(0)))
        self._step: Callable[[], object]

    def build(self, mode: str, model: dict[str, Any], ndim: int, channels: int, scale: list[int], batch: int,
              patch: list[int], dtype: str) -> dict[str, int | str | bool]:
        """Makes the program; returns its parameter count and the memory format that was faster."""
        torch.manual_seed(0)
        fine = [size * s for size, s in zip(patch, scale, strict=True)]
        last = (torch.channels_last, torch.channels_last_3d)[ndim - 2]
        contestants = {}
        for layout, memory_format in (("channels_last", last), ("contiguous", torch.contiguous_format)):
            network = networks.build(ndim=ndim, channels=channels, scale=tuple(scale), **model)
            network = network.to(DEVICE, memory_format=memory_format)
            x, y = (torch.rand(batch, channels, *size, device=DEVICE).to(memory_format=memory_format)
                    for size in (patch, fine))
            contestants[layout] = _program(mode, network, x, y, dtype)
        seconds = {layout: min(clock(step, 4)[1:]) for layout, step in contestants.items()}
        chosen = min(seconds, key=seconds.__getitem__)
        self._step = contestants[chosen]
        return {"params": sum(p.numel() for p in network.parameters()), "layout": chosen,
                "compiled": CUDA, "threads": torch.get_num_threads()}

    def run(self, steps: int) -> list[float]:
        """Milliseconds of each step, after one that does not count."""
        return [1e3 * seconds for seconds in clock(self._step, steps + 1)[1:]]

    def matrix_peak(self, dtype: str) -> float:
        """FLOP/s of a large matrix product."""
        n = 8192 if CUDA else 2048
        a, b = (torch.full((n, n), 0.5, dtype=DTYPES[dtype], device=DEVICE) for _ in range(2))
        return 2 * n**3 / min(clock(lambda: a @ b, 6)[1:])


def _program(mode: str, network: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, dtype: str) -> Callable[[], object]:
    network.train(mode == "step")
    predict = predictor(network, dtype)
    if mode == "infer":
        return torch.inference_mode()(lambda: predict(x))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        functional.l1_loss(predict(x), y).backward()
        optimizer.step()

    return step


def predictor(network: torch.nn.Module, dtype: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """The network's forward pass, computed in `dtype`; compiled on CUDA."""
    forward = torch.compile(network) if CUDA else network

    def predict(x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=dtype == "bf16"):
            return forward(x)

    return predict


def clock(step: Callable[[], object], steps: int) -> list[float]:
    """The seconds that each of `steps` calls takes."""
    seconds = []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        if CUDA:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return seconds
