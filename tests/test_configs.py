"""Every config trains two steps, is evaluated and applied to a file, at a test size: `pytest -m slow`, a step of its own."""

import importlib
import json
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image

from medjax import apply
from medjax.evaluation.run import evaluate_run
from medjax.tasks.ct_segment import CtSegment
from medjax.train.loop import train
from medjax.train.run import load_config, load_splits, restore_best
from medjax.types import Task, UserError
from tests.video_files import clip, noise

NAMES = sorted(p.stem for p in (Path(__file__).parents[1] / "configs").glob("*.py") if p.stem not in ("base", "__init__"))
SMALL_NETWORK = {"width": 4, "depth": 2, "blocks": 1, "iterations": 2, "latent": 4}
SMALL_DATA = {"htc2022": {"data.source.size": 64, "data.source.count": 12, "data.fractions": (0.5, 0.25, 0.25),
                          "task.detectors": 70, "task.detector_mm": 1.6, "task.step": 3.0}}
KEEPS_SIZE = {"synthesis", "volume", "ct_recon", "ct_lowdose", "xray_classify"}  # network or scanner has its own sizes
SINGLE = "in.nii.gz"
MADE = {
    "anomaly": {"out.csv", "out_anomaly.nii.gz"}, "brain_segment": {"out.nii.gz"}, "ct_recon": {"out.nii.gz"},
    "fuse": {"out_FLAIR.nii.gz"}, "htc2022": {"out.nii.gz"}, "mri_recon": {"out.nii.gz", "out_check.json"},
    "polyps": {"out.png"},
    "register": {"out_displacement.nii.gz", "out_warped.nii.gz"}, "translate": {"out_FLAIR.nii.gz"},
    "ultrasound": {"out.mkv"},
    **{name: {"out.nii.gz", "out_check.json"} for name in ("inpaint", "mri_srgan", "mri_superres3d")},
    "volume": {"out.nii.gz"}, "xray_classify": {"out.csv"},
}
"""What `apply` makes of each config's run; of others an image in the format that was read."""


def volumes(folder: Path) -> None:
    """Crops of five people in the layout of the Medical Segmentation Decathlon, each scanner with a gain of its own."""
    for i in range(5):
        label = np.zeros((14, 18, 12), np.uint8)
        label[4:8, 4:8, 4:8], label[4:8, 9:13, 4:8] = 1, 2
        image = np.float32(10.0**i) * (np.random.default_rng(i).random(label.shape, np.float32) + label)
        for kind, values in (("images", image), ("labels", label)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            nibabel.Nifti1Image(values, np.eye(4)).to_filename(folder / kind / f"{i}.nii.gz")


def pictures(folder: Path) -> None:
    """Colour frames and black and white masks as JPEG, in folders for training and validation."""
    for part, count in (("train", 4), ("validation", 1)):
        for i in range(count):
            mask = np.zeros((64, 64), np.uint8)
            mask[16:40, 16 + i:40 + i] = 255
            frame = np.random.default_rng(i).integers(0, 255, (64, 64, 3), np.uint8)
            for kind, values in (("images", frame), ("masks", mask)):
                (folder / part / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(folder / part / kind / f"{i}.jpg")


def clips(folder: Path) -> None:
    """Clips of five patients."""
    for i in range(5):
        clip(folder / f"patient_{i}.mkv", noise(9, 40, 40, seed=i))


DRAWN = {"hippocampus": volumes, "polyps": pictures, "ultrasound": clips}
"""Files in the layout that a config without built-in data reads."""


def tiny(name: str, folder: Path):
    """A config at a test size; its argument may follow behind a colon."""
    name, _, argument = name.partition(":")
    config = importlib.import_module(f"configs.{name}").get_config(argument)
    if name in DRAWN:
        DRAWN[name](folder)
        config.data.path = str(folder)
    for key, value in SMALL_DATA.get(name, {}).items():
        config.update_from_flattened_dict({key: value})
    config.steps = config.eval_every = config.checkpoint_every = 2
    config.log_every = config.eval_samples = 1
    config.batch_size = 2
    config.mesh.data = 1
    config.references = ("none",)  # each runs at a test size in test_masks.py
    config.optim.warmup = 0
    for key in SMALL_NETWORK.keys() & config.model.keys():
        if name not in KEEPS_SIZE and isinstance(config.model[key], int):
            config.model[key] = min(config.model[key], SMALL_NETWORK[key])
    if config.data.patch and name not in KEEPS_SIZE:
        config.data.patch = tuple(min(32, size) for size in config.data.patch)
    return config


def image_file(path: Path, image: np.ndarray, spacing: tuple[float, ...]) -> Path:
    """`(*space)` in units as a file: NIfTI, or PNG for values up to 255 without a voxel size (colours too: `(H, W, 3)`)."""
    if not spacing:
        path = path.with_name(path.name.removesuffix(".nii.gz") + ".png")
        Image.fromarray(np.uint8(np.clip(image, 0, 255))).save(path)
    else:
        sizes = (spacing or (1.0,) * image.ndim)[::-1]
        nibabel.Nifti1Image(np.float32(image.T), np.diag([*sizes, *[1.0] * (4 - image.ndim)])).to_filename(path)
    return path


def kspace_file(path: Path, image: np.ndarray) -> Path:
    coils = image[:, None] * np.linspace([0.5, 1], [1, 0.5], image.shape[-1]).T[None, :, None]
    kspace = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(coils, (-2, -1)), norm="ortho"), (-2, -1))
    with h5py.File(path.with_name("in.h5"), "w") as file:
        file["kspace"] = kspace.astype(np.complex64)
    return path.with_name("in.h5")


def sinogram_file(path: Path, task: Task, image: np.ndarray) -> Path:
    """A disc of water, or of the material that is looked for: its projections are known."""
    geometry = {"beam": "parallel", "angles_deg": {"first": 0, "last": 168, "count": 15}, "detector_count": 90,
                "detector_mm": 1.5, "pixel_mm": 2.0, "image_shape": [40, 40]}
    distance, mu = (np.arange(90) - 44.5) * 1.5, 0.0192
    if isinstance(task, CtSegment):
        geometry |= {"beam": "fan", "detector_count": task.detectors, "detector_mm": task.detector_mm,
                     "source_axis_mm": task.source_mm, "source_detector_mm": task.source_detector_mm,
                     "angles_deg": {"first": 20, "last": 20 + 14 * task.step, "count": 15}, "pixel_mm": task.field_mm / 40}
        distance, mu = task.scanner((40, 40)).distances_mm, task.attenuation
    chord = 2 * np.sqrt(np.maximum(30.0**2 - distance**2, 0))
    np.save(path.with_name("in.npy"), np.float32(np.tile(mu * chord, (15, 1))))
    path.with_name("in.json").write_text(json.dumps(geometry))
    return path.with_name("in.npy")


def inputs_of(task: Task, config, folder: Path) -> list[str]:
    """Files of the right kind for a run, from an image of its own test part, as flags."""
    region = load_splits(config)["test"][0]
    image, spacing = region.record.in_units(slice(region.start, region.stop)), region.record.spacing_mm
    if task.kind == "sinogram":
        return [str(sinogram_file(folder / SINGLE, task, image))]
    if task.kind == "kspace":
        return [str(kspace_file(folder / SINGLE, image[:3, ..., 0]))]
    if config.data.source.name == "frames":
        return [str(clip(folder / "in.mkv", list(np.uint8(image[..., 0]))))]
    if image.ndim == 4 and config.data.ndim == 2:
        image = image[:2]
    if task.input_ndim < config.data.ndim:  # projections
        image, spacing = np.stack([image.mean(1), image.mean(2)]), spacing[:1] * 3
    if len(task.inputs) == 1:
        return [str(image_file(folder / SINGLE, image[..., 0] if spacing or image.shape[-1] != 3 else image, spacing))]
    found = []
    for number, name in enumerate(task.inputs):
        channel = image[..., min(number, image.shape[-1] - 1)]
        values = np.indices(channel.shape).sum(0) % 2 if name == "known" else channel
        found.append(f"{name}:{image_file(folder / f'{name}.nii.gz', values, spacing)}")
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_config_trains_is_evaluated_and_applied(name, tmp_path):
    workdir = tmp_path / "run"
    train(tiny(name, tmp_path / "data"), workdir)
    evaluate_run(workdir)
    found = json.loads((workdir / "eval" / "metrics.json").read_text())
    assert "model" in found["rows"]
    assert (workdir / "eval" / "report.html").stat().st_size > 10_000

    config, task = load_config(workdir), restore_best(workdir)[0].task
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    expected = MADE.get(name, {"out.nii.gz"})
    main = next((made for made in expected if made.startswith("out.")), "out.nii.gz")
    given = inputs_of(task, config, tmp_path)
    with flagsaver.flagsaver(workdir=str(workdir), input=given, output=str(tmp_path / "applied" / main)):
        if name == "synthesis":
            with pytest.raises(UserError, match="noise"):
                apply.main()
            return
        if task.kind == "kspace":  # its scale is the scanner's
            with pytest.raises(UserError, match=r"values are .* --rescale=percentile or --rescale=range"):
                apply.main()
            flags.FLAGS.rescale = "range"
        apply.main()
        assert {path.name for path in (tmp_path / "applied").iterdir()} == expected
        if "out.csv" in expected:  # a table of that name is the user's: nothing is written
            (tmp_path / "own").mkdir()
            (tmp_path / "own" / "out.csv").write_text("mine")
            flags.FLAGS.output = str(tmp_path / "own" / main)
            with pytest.raises(UserError, match=r"out\.csv: is there already"):
                apply.main()
            assert [(path.name, path.read_text()) for path in (tmp_path / "own").iterdir()] == [("out.csv", "mine")]
