"""nnU-Net: its fingerprint, plan, preprocessing, augmentation and trainer, on the people that medjax trains on.

Its plan is kept but for the patch, the batch and the widths, which are the case's; a fold of all cases is trained. The order
of its samples is its own.
"""

import json
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from stored import Pairs

NAME, CONFIGURATION = "Dataset004_Hippocampus", "3d_fullres"
EPOCHS = 5
os.environ |= {"nnUNet_n_proc_DA": "1", "nnUNet_compile": "f", "nnUNet_def_n_proc": "1"}


def versions() -> dict[str, str]:
    """nnU-Net's and PyTorch's."""
    return {"nnunetv2": version("nnunetv2"), "torch": torch.__version__}


def places(folder: Path) -> None:
    """Tells nnU-Net where its files go; before it is imported."""
    for name in ("raw", "preprocessed", "results"):
        os.environ[f"nnUNet_{name}"] = str(folder.resolve() / name)


def write_cases(pairs: Pairs, folder: Path) -> None:
    """The training people's files, or where there are none the patches, as nnU-Net's raw data."""
    settings = pairs.settings
    raw = folder / "raw" / NAME
    (raw / "imagesTr").mkdir(parents=True)
    (raw / "labelsTr").mkdir()
    if settings["data"]:
        data = Path(settings["data"])
        for label in sorted((data / "labels").glob("*.nii.gz")):
            name = label.name.removesuffix(".nii.gz")
            if name not in settings["test_people"]:
                (raw / "labelsTr" / label.name).symlink_to(label)
                (raw / "imagesTr" / f"{name}_0000.nii.gz").symlink_to(data / "images" / label.name)
    else:
        for number, (image, target) in enumerate(zip(pairs["input"], pairs["target"], strict=True)):
            for array, name in ((image[..., 0], f"imagesTr/{number:03d}_0000"),
                                (target.argmax(-1).astype(np.uint8), f"labelsTr/{number:03d}")):
                nibabel.Nifti1Image(array, np.eye(4)).to_filename(raw / f"{name}.nii.gz")
    said = {"channel_names": {"0": "MRI"}, "labels": {"background": 0} | {f"class {i}": i for i in
            range(1, settings["classes"])}, "numTraining": len(list((raw / "labelsTr").iterdir())), "file_ending": ".nii.gz"}
    (raw / "dataset.json").write_text(json.dumps(said))


def plan(settings: dict[str, Any], folder: Path) -> None:
    """nnU-Net's plan and preprocessing; then the case's patch, batch and widths."""
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    api.extract_fingerprints([4], num_processes=1)
    api.plan_experiments([4])
    path = folder / "preprocessed" / NAME / "nnUNetPlans.json"
    plans = json.loads(path.read_text())
    own = plans["configurations"][CONFIGURATION]
    own |= {"patch_size": settings["patch"], "batch_size": settings["batch_size"]}
    levels = len(settings["widths"])
    network = own["architecture"]["arch_kwargs"]
    network |= {"n_stages": levels, "features_per_stage": settings["widths"], "kernel_sizes": [[3] * 3] * levels,
                "strides": [[1] * 3] + [[2] * 3] * (levels - 1), "n_conv_per_stage": [2] * levels,
                "n_conv_per_stage_decoder": [2] * (levels - 1)}
    path.write_text(json.dumps(plans))
    api.preprocess([4], configurations=[CONFIGURATION], num_processes=[1])


def train(pairs: Pairs, folder: Path) -> int:
    """As many iterations as medjax's steps, in a few epochs, each validated on one batch."""
    settings = pairs.settings
    places(folder)
    torch.set_num_threads(settings["threads"])
    np.random.seed(settings["seed"])
    torch.manual_seed(settings["seed"])
    write_cases(pairs, folder)
    plan(settings, folder)
    from nnunetv2.run.run_training import get_trainer_from_args

    os.environ |= {"nnUNet_n_proc_DA": "0"}  # augments between the steps, on the one core; its planner cannot take 0
    trainer = get_trainer_from_args("4", CONFIGURATION, "all", device=torch.device("cpu"))
    epochs = min(EPOCHS, settings["steps"])
    trainer.num_epochs, trainer.num_iterations_per_epoch = epochs, settings["steps"] // epochs
    trainer.num_val_iterations_per_epoch = 1
    trainer.run_training()
    return sum(p.numel() for p in trainer.network.parameters())


def predict(pairs: Pairs, folder: Path) -> np.ndarray:
    """The label maps of the test people, one-hot, by nnU-Net's predictor with its own defaults."""
    settings = pairs.settings
    places(folder)
    torch.set_num_threads(settings["threads"])
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(next((folder / "results" / NAME).iterdir())), ("all",))
    found = np.zeros(pairs["target"].shape, np.float32)
    for row, (name, padded) in enumerate(zip(settings["test_people"], pairs["input"], strict=True)):
        path = Path(settings["data"]) / "images" / f"{name}.nii.gz"
        image = np.asarray(nibabel.load(path).dataobj if settings["data"] else padded[..., 0], np.float32)
        # As SimpleITK reads it, by which it was trained: z, y, x.
        labels = predictor.predict_single_npy_array(image.transpose()[None], {"spacing": [1.0, 1.0, 1.0]}).transpose()
        found[row][tuple(slice(n) for n in labels.shape)] = np.eye(settings["classes"], dtype=np.float32)[labels]
    return found
