"""Runs the exported model of this folder on an image, without medjax:

    python run.py INPUT.npy OUTPUT.npy

INPUT and OUTPUT are NumPy's .npy files or, where nibabel is installed, NIfTI. manifest.json says what goes in and what comes
out. An array has the shape (*space, C); a batch may stand in front, and an axis of one channel may be left out. Contrasts
are given as one array with a channel for each, or as one file for each, in the manifest's order; k-space may be complex,
(*space, coils). Needed are numpy and either jax with flatbuffers (model.stablehlo) or onnxruntime (model.onnx).
"""

import argparse
import hashlib
import importlib.util
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).resolve().parent
PACKAGES = {"stablehlo": ("jax", "flatbuffers"), "onnx": ("onnxruntime",)}
NIFTI = (".nii", ".nii.gz")
PERCENTILES, MAX_SIZE = (1, 99), 128  # how a volume is normalised: of values on a grid of at most so many along each axis
MAX_CHANNELS = 4  # a last axis up to this is one of colours, not of space
BEYOND, COARSER = 0.5, 2.0  # values that far outside the training images', as a part of their range; voxels so much larger

Model = Callable[[Sequence[np.ndarray]], np.ndarray]
Shape = Sequence[Any]


class RefusedError(Exception):
    """What was given doesn't fit the model; said in one line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the model on the files of the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", type=Path)
    parser.add_argument("output", metavar="OUTPUT", type=Path)
    parser.add_argument("--runtime", choices=list(PACKAGES), help="by default the first of them that is installed")
    parser.add_argument("--labels", action="store_true", help="write the number of the most probable class, uint8")
    given = parser.parse_args(argv)
    try:
        _run(given)
    except RefusedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(given: argparse.Namespace) -> None:
    manifest = json.loads((FOLDER / "manifest.json").read_text(encoding="utf-8"))
    if given.output.exists():
        raise RefusedError(f"{given.output}: is there already; name a new file")
    if given.labels and manifest["output"]["name"] != "probabilities":
        raise RefusedError(f"--labels: the model gives {manifest['output']['name']}, not probabilities of classes")
    runtime = _runtime(manifest, given.runtime)
    shapes = manifest["models"][runtime]["shapes"]
    files = [_read(path) for path in given.inputs]
    arrays = [array for array, _ in _by_input(files, manifest["inputs"])]
    affine = files[0][1]
    low, high = _limits(arrays[0]) if manifest["normalise"] == "volume" else (0.0, 1.0)
    arrays[0] = (arrays[0] - low) / (high - low) if np.isrealobj(arrays[0]) else arrays[0]
    _tell_differences(manifest, arrays[0], affine)
    batches = [_batched(array, shape, path) for array, shape, path in zip(arrays, shapes, given.inputs, strict=False)]
    made = _applied(_model(manifest, runtime), batches, shapes, manifest)
    if manifest["output"]["as_input"]:
        made = made * np.float32(high - low) + np.float32(low)
    if given.labels:
        made = made.argmax(-1).astype(np.uint8)[..., None]
    _write(given.output, _as_given(made, arrays[0], batches[0]), affine, manifest["output"]["scale"])
    print(f"written: {given.output}")


def _runtime(manifest: dict[str, Any], wanted: str | None) -> str:
    there = [wanted] if wanted else list(manifest["models"])
    if wanted and wanted not in manifest["models"]:
        raise RefusedError(f"--runtime: {wanted} was not exported; this folder has {', '.join(manifest['models'])}")
    for runtime in there:
        if all(importlib.util.find_spec(name) for name in PACKAGES[runtime]):
            return runtime
    raise RefusedError("packages: needed are " + ", or ".join(" and ".join(PACKAGES[runtime]) for runtime in there))


def _model(manifest: dict[str, Any], runtime: str) -> Model:
    found = manifest["models"][runtime]
    data = (FOLDER / found["file"]).read_bytes()
    if hashlib.sha256(data).hexdigest() != found["sha256"]:
        raise RefusedError(f"{found['file']}: is damaged, its SHA-256 is not that of the manifest; copy it again")
    if runtime == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(data)
        names = [given.name for given in session.get_inputs()]
        return lambda arrays: session.run(None, dict(zip(names, arrays, strict=True)))[0]
    import jax
    import jax.export

    call = jax.jit(jax.export.deserialize(bytearray(data)).call)
    return lambda arrays: np.asarray(call(*arrays))


def _read(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """An array (*space) or (*space, C), and for NIfTI the affine of its (z, y, x)."""
    if not path.is_file():
        raise RefusedError(f"{path}: no such file")
    if not path.name.lower().endswith(NIFTI):
        try:
            return np.load(path, allow_pickle=False), None
        except (ValueError, EOFError) as error:
            raise RefusedError(f"{path}: can't be read as .npy ({error})") from None
    file = _nibabel().as_closest_canonical(_nibabel().load(path))
    image = np.asarray(file.dataobj, np.float32)
    if image.ndim != 3:
        raise RefusedError(f"{path}: has {image.ndim} axes; give one volume")
    return image.transpose(2, 1, 0), file.affine[:, [2, 1, 0, 3]]


def _nibabel() -> Any:
    if not importlib.util.find_spec("nibabel"):
        raise RefusedError("nibabel: is needed for NIfTI files; install it, or give .npy")
    import nibabel

    return nibabel


def _by_input(files: Sequence[tuple[np.ndarray, Any]], inputs: Sequence[dict[str, Any]]) -> list[tuple[np.ndarray, Any]]:
    """One array for each input of the model; of several files for the channels of one input they are put together."""
    if len(files) == len(inputs):
        return list(files)
    names = inputs[0]["channels"]
    if len(inputs) == 1 and len(files) == len(names) and len({array.shape for array, _ in files}) == 1:
        return [(np.stack([array for array, _ in files], -1), files[0][1])]
    wanted = " ".join(port["name"] for port in inputs)
    each = f", or one array for each of {', '.join(names)}, of one size" if len(inputs) == 1 and len(names) > 1 else ""
    raise RefusedError(f"inputs: {len(files)} were given; the model takes {wanted}{each}, and then the output")


def _limits(array: np.ndarray) -> tuple[float, float]:
    """The percentiles between which a volume's values are scaled to 0 … 1; the least and greatest of nearly empty ones."""
    values = array[tuple(slice(None, None, -(-size // MAX_SIZE)) for size in array.shape)]
    low, high = (float(value) for value in np.percentile(values, PERCENTILES))
    if not low < high:
        low, high = float(array.min()), float(array.max())
    if not low < high:
        raise RefusedError(f"input: has the value {low:g} everywhere")
    return low, high


def _tell_differences(manifest: dict[str, Any], array: np.ndarray, affine: np.ndarray | None) -> None:
    """Warns of values and voxel sizes that differ from those of the training images."""
    known, spacing = manifest["training"]["percentiles"], manifest["training"]["spacing_mm"]
    if manifest["inputs"][0]["name"] == "image":
        width = known[1] - known[0]
        low, high = (float(value) for value in np.percentile(array, (0.1, 99.9)))
        if high > known[1] + BEYOND * width or low < known[0] - BEYOND * width:
            print(f"warning: values are {low:.4g} … {high:.4g}, and the model was trained on {known[0]:.4g} … "
                  f"{known[1]:.4g}", file=sys.stderr)
    if affine is not None and spacing:
        sizes = np.linalg.norm(affine[:3, :3], axis=0)
        if sizes.min() * COARSER < spacing[0] or sizes.max() > spacing[1] * COARSER:
            print(f"warning: voxels are {' x '.join(f'{size:.3g}' for size in sizes)} mm, and the model was trained on "
                  f"{spacing[0]:.3g} … {spacing[1]:.3g} mm", file=sys.stderr)


def _batched(array: np.ndarray, shape: Shape, path: Path) -> np.ndarray:
    """The array as float32 (B, *space, C)."""
    if np.iscomplexobj(array):
        array = np.concatenate([array.real, array.imag], -1)
    axes, channels = len(shape), shape[-1]
    if array.ndim == axes - 2 and channels == 1:
        array = array[None, ..., None]
    elif array.ndim == axes - 1 and _fits(array.shape[-1], channels):
        array = array[None]
    elif array.ndim == axes - 1 and channels == 1 and array.shape[-1] > MAX_CHANNELS:
        array = array[..., None]
    if array.ndim != axes or not _fits(array.shape[-1], channels) or not array.size:
        wanted = ", ".join(map(str, shape[1:]))
        raise RefusedError(f"{path}: has the shape {array.shape}; the model takes ({wanted}), a batch in front or not")
    return array.astype(np.float32)


def _fits(size: int, wanted: int | str) -> bool:
    return size == wanted if isinstance(wanted, int) else size % _multiple(wanted) == 0


def _multiple(wanted: str) -> int:
    """Of what a free size is a multiple: 16 for "16*h"."""
    found = re.fullmatch(r"(\d+)\*\w+", wanted)
    return int(found[1]) if found else 1


def _applied(model: Model, batches: Sequence[np.ndarray], shapes: Sequence[Shape], manifest: dict[str, Any]) -> np.ndarray:
    """The model on every sample in turn, padded with its edge where the sizes ask for it, and cut again."""
    if len({batch.shape[0] for batch in batches}) > 1 or len({batch.shape[1:-1] for batch in batches}) > 1:
        raise RefusedError("inputs: differ in size: " + ", ".join(str(batch.shape) for batch in batches))
    space, wanted = batches[0].shape[1:-1], shapes[0][1:-1]
    pads = [(0, 0 if isinstance(want, int) else -size % _multiple(want)) for size, want in zip(space, wanted, strict=True)]
    fixed = any(isinstance(want, int) and size != want for size, want in zip(space, wanted, strict=True))
    padded = any(after for _, after in pads)
    if fixed or (padded and not manifest["pads"]):
        raise RefusedError(f"input: is {' x '.join(map(str, space))}; the model takes {' x '.join(map(str, wanted))}")
    made = []
    for sample in zip(*batches, strict=True):
        arrays = [np.pad(array, [*pads, (0, 0)], mode="edge")[None] if padded else array[None] for array in sample]
        made.append(np.asarray(model(arrays))[0])
    scale = manifest["output"]["scale"]
    cut = (slice(None), *(slice(0, size * factor) for size, factor in zip(space, scale, strict=False)))
    return np.stack(made)[cut]


def _as_given(made: np.ndarray, array: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """The result without a batch, and without an axis of one channel, where the input had none."""
    has_channels = np.iscomplexobj(array) or array.shape[-1:] == batch.shape[-1:]
    has_batch = array.ndim == batch.ndim or (array.ndim == batch.ndim - 1 and not has_channels)
    made = made if has_channels or made.shape[-1] > 1 else made[..., 0]
    return made if has_batch else made[0]


def _write(path: Path, made: np.ndarray, affine: np.ndarray | None, scale: Sequence[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.name.lower().endswith(NIFTI):
        with path.open("wb") as file:
            np.save(file, made)
        return
    if affine is None or not scale:
        raise RefusedError(f"{path}: NIfTI needs an input in NIfTI and a result on its grid; name an .npy file")
    factors = np.array([*(1,) * (3 - len(scale)), *scale], float)
    grid = affine @ np.diag([*(1 / factors), 1.0])
    grid[:3, 3] += affine[:3, :3] @ ((1 / factors - 1) / 2)
    turned = made.transpose(2, 1, 0, *range(3, made.ndim))
    _nibabel().Nifti1Image(np.ascontiguousarray(turned), grid[:, [2, 1, 0, 3]]).to_filename(path)


if __name__ == "__main__":
    sys.exit(main())
