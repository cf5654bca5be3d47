"""Networks of SCICO for CT, trained by its BasicFlaxTrainer with the settings of its examples.

`UNet` after filtered back-projection is that of ct_unet_train_foam2 (SGD), `MoDLNet` that of ct_modl_train_foam2 (a stage
with one iteration by SGD, then all of them by Adam), `ODPNet` that of ct_odp_train_foam2 (Adam).
"""

from functools import partial
from pathlib import Path
from typing import Any

import flax
import jax
import numpy as np
import scico
from flax import serialization
from scico import flax as sflax
from scico.flax.train.traversals import clip_positive, construct_traversal
from scico.linop.xray import XRayTransform2D
from stored import Pairs

RATES = {"UNet": 1e-2, "MoDLNet": 1e-2, "ODPNet": 1e-3}
FIRST_STAGE = 20 / 170  # of MoDL's epochs


def versions() -> dict[str, str]:
    """SCICO's, and those of what its networks run on."""
    return {"scico": scico.__version__, "scico's jax": jax.__version__, "scico's flax": flax.__version__}


def scanner(pairs: Pairs) -> Any:
    """SCICO's projector of the scan, of norm about 1: medjax's angles count from the other axis."""
    size, views, detectors = pairs["target"].shape[1], *pairs["y"].shape[1:3]
    angles = np.arange(views) * np.pi / views + np.pi / 2
    return (1 / np.sqrt(views * size)) * XRayTransform2D((size, size), angles, dx=1.0, det_count=detectors)


def network(pairs: Pairs, iterations: int = 0) -> Any:
    """The network, of `iterations` in place of its own."""
    settings = pairs.settings
    own = {"channels": 1, "num_filters": settings["filters"], "block_depth": settings["block_depth"],
           "depth": iterations or settings["depth"]}
    if settings["network"] == "UNet":
        return sflax.UNet(**own)
    if settings["network"] == "MoDLNet":
        return sflax.MoDLNet(operator=scanner(pairs), cg_iter=settings["cg_first"] if iterations else settings["cg"], **own)
    return sflax.ODPNet(operator=scanner(pairs), odp_block=sflax.inverse.ODPGrDescBlock, alpha_ini=1e-2, **own)


def given(pairs: Pairs) -> np.ndarray:
    """What the network sees: the sinogram, or the back-projection, clipped as in the example."""
    return np.clip(pairs["input"], 0, 1) if pairs.settings["network"] == "UNet" else np.array(pairs["y"])


def train(pairs: Pairs, folder: Path) -> int:
    """One pass over the pairs, which are all of the training."""
    settings = pairs.settings
    images, labels = given(pairs), np.array(pairs["target"])
    config: dict[str, Any] = {"seed": settings["seed"], "batch_size": settings["batch_size"], "num_epochs": 1,
                              "base_learning_rate": RATES[settings["network"]], "warmup_epochs": 0, "log": False,
                              "checkpointing": False, "opt_type": "ADAM", "momentum": 0.9}
    if settings["network"] == "UNet":
        config["opt_type"] = "SGD"
    else:
        name, least = ("lmbda", 5e-4) if settings["network"] == "MoDLNet" else ("alpha", 1e-3)
        config["post_lst"] = [partial(clip_positive, traversal=construct_traversal(name), minval=least)]
    started, first = None, 0
    if settings["network"] == "MoDLNet":
        first = max(1, round(FIRST_STAGE * settings["steps"])) * settings["batch_size"]
        started = stage(config | {"opt_type": "SGD"}, network(pairs, 1), images[:first], labels[:first])
    found = stage(config, network(pairs), images[first:], labels[first:], started)
    (folder / "weights.msgpack").write_bytes(serialization.msgpack_serialize(serialization.to_state_dict(found)))
    return sum(leaf.size for leaf in jax.tree.leaves(found["params"]))


def stage(config: dict[str, Any], model: Any, images: np.ndarray, labels: np.ndarray, start: Any = None) -> Any:
    """The variables after a pass, from those of an earlier one."""
    one = {"image": images[: config["batch_size"]], "label": labels[: config["batch_size"]]}
    trainer = sflax.BasicFlaxTrainer(config, model, {"image": images, "label": labels}, one, start)
    return trainer.train()[0]


def predict(pairs: Pairs, folder: Path) -> np.ndarray:
    """What the trained network makes of what it sees."""
    found = serialization.msgpack_restore((folder / "weights.msgpack").read_bytes())
    model, step = network(pairs), pairs.settings["batch_size"]
    images = given(pairs)
    made = [np.asarray(sflax.FlaxMap(model, found)(images[i:i + step])) for i in range(0, len(images), step)]
    return np.concatenate(made).astype(np.float32)
