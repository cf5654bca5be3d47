"""Whole trainings beside other packages at an equal budget: the same pairs in the same order, as many steps, one machine.

    python -m benchmarks.equal_budget                             # every case with three seeds, an hour
    python -m benchmarks.equal_budget deepinv_dncnn --seeds=0 --data=FOLDER --peer_python=PYTHON
    python -m benchmarks.equal_budget deepinv_dncnn --size=tiny   # on built-in data: whether it runs
    python -m benchmarks.equal_budget --tables                    # no training: the tables of docs/equal_budget.md

For each case and seed a process of its own does each of these:

1. `pairs.py` notes which inputs and targets a run of the case's config trains on, batch for batch, and those of its test
   people, who take no part in training (`*.npy`, channels last, in unit range).
2. `side.py` trains that config as `train.py` does, from the scans themselves.
3. `peers/child.py`, under the Python that has the peer, trains the peer's own network by its own trainer on the noted pairs.

2 and 3 take turns in being first. Each is timed from the start of its process to its end, weights saved: imports,
compilation (no persistent cache) and reading of data are in it, evaluation is not. Each then predicts the test inputs, and
one function of NumPy (`quality.py`) scores both.

A case is an entry of `cases.CASES` and, for a package that has none yet, a module of the folder `peers` that imports
nothing of medjax and has

    versions() -> dict[str, str]                       # of the packages that the numbers depend on
    train(pairs: Pairs, folder: Path) -> int           # trains on `pairs`, saves the weights in `folder`; their number
    predict(pairs: Pairs, folder: Path) -> np.ndarray  # loads them; what they make of pairs["input"], shaped as the target

`Pairs` (`peers/stored.py`) has the arrays by name, batches of them in the order of training, and `settings`: `steps`,
`batch_size`, `lr`, `seed`, `threads` and what the case has in `settings`. Arrays are named after the fields of an example:
"input", "target", "mask", and of a measurement "y", "maps", "sampled".
"""
