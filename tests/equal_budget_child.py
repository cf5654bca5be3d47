"""Trains every network of a peer for test_equal_budget.py; runs under the peers' Python.

    python equal_budget_child.py PEERS FOLDER

PEERS is benchmarks/equal_budget/peers. For every FOLDER/CASE/pairs, whose settings.json names the `module`, FOLDER/CASE gets
what a training and a prediction write.
"""

import json
import sys
from pathlib import Path


def main(peers: str, folder: str) -> None:
    sys.path.insert(0, peers)
    import child

    for pairs in sorted(Path(folder).glob("*/pairs")):
        module = json.loads((pairs / "settings.json").read_text())["module"]
        for what in ("train", "predict"):
            child.main(module, what, str(pairs), str(pairs.parent))


if __name__ == "__main__":
    main(*sys.argv[1:])
