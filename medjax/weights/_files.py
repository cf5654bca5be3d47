"""Files of weights as named arrays: safetensors, PyTorch's, Flax's msgpack."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.serialization import msgpack_restore, msgpack_serialize
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from medjax.files import atomic
from medjax.types import UserError

TORCH = (".pt", ".pth", ".ckpt")
READ = (".safetensors", *TORCH, ".mpk")
WRITTEN = (".safetensors", ".mpk")
HOLDERS = ("state_dict", "model_state_dict", "network_weights", "model", "net", "params")
"""What checkpoints of training code call the weights among other things."""


def read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name; of a tree, its keys are joined by "/". Numbers with a fraction become float32.

    Raises UserError for what is no such file, or needs PyTorch where that is not installed.
    """
    if path.suffix not in READ:
        raise UserError(path, f"is no file of weights; give {', '.join(READ)}")
    if not path.is_file():
        raise UserError(path, "no such file")
    found = _read_torch(path) if path.suffix in TORCH else _read_arrays(path)
    return {name: np.asarray(array, np.float32) if array.dtype.kind not in "iub" else array for name, array in found.items()}


def write(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name; to .mpk, names with "/" as a tree. Raises UserError for another suffix."""
    if path.suffix not in WRITTEN:
        raise UserError("--to", f"{path} has another ending than {', '.join(WRITTEN)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as unfinished:
        if path.suffix == ".mpk":
            unfinished.write_bytes(msgpack_serialize(unflatten_dict(dict(arrays), sep="/")))
        else:
            save_file(dict(arrays), unfinished)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tree = msgpack_restore(path.read_bytes())
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(path, f"can't be read as {path.suffix}: {error}") from error
    if not isinstance(tree, dict):
        raise UserError(path, f"holds a {type(tree).__name__}, not a tree of arrays by name")
    return {name: np.asarray(leaf) for name, leaf in flatten_dict(tree, sep="/").items()}


def _read_torch(path: Path) -> dict[str, np.ndarray]:
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        raise UserError(path, "needs PyTorch to be read: pip install torch, or save the weights as .safetensors") from None
    try:
        with torch.serialization.safe_globals(_plain_numbers()):
            held = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling fails in many ways
        why = str(error).splitlines()[0]
        raise UserError(path, f"can't be read as weights alone ({why}); save the model's state_dict() with PyTorch, or as "
                        ".safetensors") from None
    return {name: value.float().numpy() if value.is_floating_point() else value.numpy()
            for name, value in _state_dict(held).items() if torch.is_tensor(value)}


def _plain_numbers() -> list[Any]:
    """What PyTorch may make beside tensors: NumPy's numbers, which nnU-Net notes the course of its training in."""
    scalar = np.float64(0).__reduce__()[0]
    kinds = [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "u8", "?")]
    return [np.dtype, *kinds, *((scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core"))]


def _state_dict(held: Any) -> dict[str, Any]:
    """The weights in what a checkpoint holds."""
    for name in HOLDERS:
        if isinstance(held, dict) and isinstance(held.get(name), dict):
            return held[name]
    return held if isinstance(held, dict) else {}
