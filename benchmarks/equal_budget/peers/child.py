"""The peer's side, under the Python that has it; imports nothing of medjax.

    python child.py MODULE train PAIRS FOLDER
    python child.py MODULE predict PAIRS FOLDER    # writes FOLDER/predictions.npy

PAIRS is what `pairs.py` has written, with `settings.json`; FOLDER takes the weights, `marks.json` (when imports and training
were done, in seconds since 1970, and the seconds of a step) and the packages' versions.
"""

import importlib
import json
import sys
import time
from pathlib import Path

import numpy as np
import stored


def main(name: str, what: str, pairs: str, folder: str) -> None:
    """Trains or predicts by the module `name`."""
    module, target = importlib.import_module(name), Path(folder)
    imported = time.time()
    settings = json.loads((Path(pairs) / "settings.json").read_text())
    if what == "predict":
        np.save(target / "predictions.npy", module.predict(stored.Pairs(Path(pairs) / "test", settings), target))
        return
    train = stored.Pairs(Path(pairs) / "train", settings)
    parameters = module.train(train, target)
    marks = {"imported": imported, "trained": time.time(), "step_seconds": train.step_seconds(),
             "parameters": parameters, "versions": module.versions()}
    (target / "marks.json").write_text(json.dumps(marks))


if __name__ == "__main__":
    main(*sys.argv[1:])
