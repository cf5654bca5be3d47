"""One of two processes: reads the checkpoint that one process wrote, then writes one of its own for one to read.

    python -m tests.processes_child FOLDER PORT INDEX
"""

import sys
from pathlib import Path

import jax

from medjax.train import distributed, sharding
from medjax.train.checkpoint import Checkpoints
from medjax.types import Metric
from tests.test_processes import like, placed, same


def main(folder: Path, port: str, index: int) -> None:
    """Exits with 0 when every number it read is the one that was written."""
    jax.config.update("jax_num_cpu_devices", 2)
    distributed.join(coordinator=f"localhost:{port}", count=2, index=index)
    mesh = sharding.make_mesh(4, 1)
    checkpoints = Checkpoints(folder, Metric("psnr"), keep=9)
    state, position = checkpoints.restore_latest(placed(like(0), mesh))
    assert position == {"batches": 1}
    same(state, like(1))
    assert any(not leaf.is_fully_addressable and not leaf.is_fully_replicated for leaf in jax.tree.leaves(state))
    checkpoints.save(placed(like(2), mesh), {"batches": 2})
    checkpoints.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
