"""What is compared: a config of medjax, and the module of `peers` that trains the same kind of network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.equal_budget import foam, quality
from medjax.weights.ldct_redcnn import RANGE as LDCT_RANGE

Scores = Callable[[np.ndarray, np.ndarray, np.ndarray], dict[str, float]]


@dataclass(frozen=True)
class Case:
    """A network that both have.

    `config` and what differs from it (`changes`) train it in medjax on the scans in the folder `data`, in `steps` steps;
    `peer` is the module of `peers`, `settings` what it needs to know. With `low_dose` the scans are first made into slices
    of two doses (`lowdose.py`); `made` draws images that are in no folder. `make ENVIRONMENT` makes the peer's Python, where
    that is not `.peers`. At the size "tiny" both change by `tiny` and
    `tiny_settings`, and `tiny_config` reads built-in data. At most `test` images are scored, by `scores`.
    """

    title: str
    package: str
    peer: str
    config: str
    changes: Mapping[str, Any]
    data: str
    steps: int
    tiny_config: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    tiny: Mapping[str, Any] = field(default_factory=dict)
    tiny_settings: Mapping[str, Any] = field(default_factory=dict)
    low_dose: bool = False
    test: int = 66
    scores: Scores = quality.restored
    made: Callable[[Path], None] | None = None
    environment: str = ""


# Of every run: no evaluation while it trains, one checkpoint at its end, a plain optimizer.
PLAIN = {"references": ("none",), "eval_every": 10**9, "checkpoint_every": 10**9, "ema_decay": 0.0, "optim.name": "adam",
         "optim.schedule": "constant", "optim.warmup": 0, "optim.clip": 0.0, "augment.flip": 0.0}
BRAINS = {"data.source.match": "*_T1w.nii.gz", "data.normalise": "volume", "data.fractions": (0.5, 0.0, 0.5)}
# Segmentation by the recipe of configs/hippocampus.py.
OWN_RECIPE = {"ema_decay": 0.98, "optim.name": "adamw", "optim.schedule": "cosine", "optim.warmup": 50, "optim.clip": 1.0,
              "optim.lr": 4e-3}
HIPPOCAMPUS = {**OWN_RECIPE, "data.fractions": (0.8, 0.0, 0.2), "data.patch": (24, 40, 24), "batch_size": 2}
DYNUNET = {"model.width": 16, "model.depth": 4, "model.norm": "instance"}
TINY_VOLUMES = {"data.patch": (8, 16, 8), "data.fractions": (0.9, 0.0, 0.1)}
# CT of foam from 45 views, without noise: attenuation is so low that intensities are linear in it.
FOAM = {"data.spacing_mm": (0.1, 0.1), "data.fractions": (0.8, 0.0, 0.2), "data.range": (-1000.0, 1000.0),
        "task.views": 45, "task.photons": 0.0, "batch_size": 4, "objective.loss": "l2", "optim.name": "adamw",
        "optim.schedule": "cosine", "optim.warmup": 10, "optim.clip": 1.0}
TINY_FOAM = {"data.spacing_mm": (), "data.source.shape": (24, 24), "data.source.count": 6, "task.views": 8,
             "data.fractions": (0.5, 0.0, 0.5), "batch_size": 1}
TINY = {"data.patch": (24, 24), "data.fractions": (0.5, 0.0, 0.5), "batch_size": 2}


def _ldct(title: str, network: str, model: Mapping[str, Any], lr: float, patch: int, batch: int, steps: int,
          tiny: Mapping[str, Any], tiny_settings: Mapping[str, Any]) -> Case:
    """A network of ldct-benchmark with the rate and the patch of its config file (configs/*.yaml), in smaller batches."""
    name = {"redcnn": "redcnn", "cnn10": "cnn", "resnet": "denoising_resnet"}[network]
    changes = {"data.fractions": (0.5, 0.0, 0.5), "data.range": LDCT_RANGE,
               "task.source": ("0",), "task.target": "1", "objective.loss": "l2", "data.patch": (patch, patch),
               "batch_size": batch, "optim.lr": lr, "metric": "psnr"}
    return Case(title, "ldct-benchmark", "ldct_networks", f"translate:source=files,model={name}", changes | dict(model),
                "patients/ct_slices", steps, settings={"network": network}, tiny={**TINY, **tiny},
                tiny_settings=tiny_settings, low_dose=True, test=20, scores=quality.slices_in_hu)


CASES: dict[str, Case] = {
    "ldct_redcnn": _ldct(
        "RED-CNN", "redcnn", {"model.width": 96, "model.depth": 5, "model.kernel": 5, "model.published": True,
                              "model.final_relu": False}, 9.583e-5, 64, 2, 100, {"model.width": 4}, {"out_ch": 4}),
    "ldct_cnn10": _ldct(
        "CNN-10", "cnn10", {"model.features": (64, 32), "model.kernels": (9, 3, 5),
                            "model.norm": "none"}, 1.584e-4, 92, 8, 400, {}, {}),
    "ldct_resnet": _ldct(
        "ResNet", "resnet", {"model.width": 128, "model.blocks": 10, "model.norm": "batch"}, 1e-4, 64, 4, 40,
        {"model.width": 8, "model.blocks": 1}, {"n_channels": 8, "n_blocks": 1}),
    "fastmri_unet": Case(
        "U-Net", "fastMRI", "fastmri_networks", "mri_recon:source=files,model=unet",
        {**BRAINS, "data.range": (0.0, 1.0), "task.magnitudes": True, "task.measures": ("psnr", "ssim"),
         "model.width": 32, "model.depth": 5, "model.norm": "instance_plain", "model.act": "leaky_relu",
         "model.residual": False, "model.pool": "mean", "model.up": "transposed_norm", "model.standardise": True,
         "optim.name": "rmsprop", "optim.momentum": 0.0, "optim.lr": 1e-3, "batch_size": 1, "data.patch": (128, 128)},
        "patients/brain_t1", 600, "mri_recon:model=unet", {"chans": 32, "num_pool_layers": 4},
        {**TINY, "data.range": (0.0, 255.0), "model.width": 4, "model.depth": 2}, {"chans": 4, "num_pool_layers": 1}),
    "deepinv_dncnn": Case(
        "DnCNN", "deepinv", "deepinv_networks", "quickstart:source=files,model=cnn",
        {**BRAINS, "batch_size": 4, "data.patch": (64, 64), "optim.lr": 1e-4, "objective.loss": "l2",
         "model.features": (64,) * 19, "model.kernels": (3,) * 20},
        "patients/brain_t1", 100, "quickstart:model=cnn", {"network": "DnCNN", "depth": 20, "nf": 64, "sigma": 0.05},
        {**TINY, "model.features": (4, 4), "model.kernels": (3,) * 3}, {"depth": 3, "nf": 4}),
    "deepinv_drunet": Case(
        "U-Net of residual blocks beside DRUNet", "deepinv", "deepinv_networks", "quickstart:source=files,model=unet",
        {**BRAINS, "batch_size": 4, "data.patch": (64, 64), "optim.lr": 1e-4, "objective.loss": "l2", "model.width": 32,
         "model.depth": 4, "model.block": "residual", "model.norm": "none", "model.up": "transposed"},
        "patients/brain_t1", 100, "quickstart", {"network": "DRUNet", "nc": (32, 64, 128, 256), "nb": 4, "sigma": 0.05},
        {**TINY, "data.patch": (32, 32), "model.width": 4}, {"nc": (4, 4, 4, 4), "nb": 1}),
    "deepinv_modl": Case(
        "MoDL of 3 iterations", "deepinv", "deepinv_networks", "mri_recon:source=files,model=modl",
        {**BRAINS, "data.range": (0.0, 1.0), "model.iterations": 3, "model.layers": 7, "model.width": 64,
         "model.norm": "none", "optim.lr": 1e-3, "objective.loss": "l2", "batch_size": 1, "data.patch": (128, 128)},
        "patients/brain_t1", 60, "mri_recon:model=modl", {"network": "MoDL", "depth": 7, "num_iter": 3},
        {**TINY, "data.range": (0.0, 255.0), "model.layers": 2, "model.width": 4}, {"depth": 2, "nf": 4, "num_iter": 2}),
    "monai_unet": Case(
        "3-D U-Net from half the resolution, 3 levels", "MONAI", "monai_segmentation", "hippocampus",
        {**HIPPOCAMPUS, "model.width": 16, "model.depth": 3, "model.stride": 2}, "patients/hippocampus", 1000,
        "brain_segment",
        {"network": "UNet", "channels": (16, 32, 64), "classes": 3, "rate": 1e-3},
        {**TINY_VOLUMES, "data.ndim": 3, "model.width": 4, "model.depth": 2}, {"channels": (4, 8), "classes": 4},
        test=0, scores=quality.segmented),
    "monai_dynunet": Case(
        "nnU-Net's network, 4 levels from 16 channels", "MONAI", "monai_segmentation",
        "hippocampus:model=nnunet", {**HIPPOCAMPUS, **DYNUNET, "model.bias": False, "model.deep_supervision": 1},
        "patients/hippocampus", 400, "brain_segment:model=nnunet",
        {"network": "DynUNet", "channels": (16, 32, 64, 128), "classes": 3, "rate": 1e-1},
        {**TINY_VOLUMES, "data.ndim": 3, "model.width": 4, "model.depth": 3, "model.deep_supervision": 1},
        {"channels": (4, 8, 16), "classes": 4}, test=0, scores=quality.segmented),
    "nnunet": Case(
        "nnU-Net's network, 4 levels from 16 channels, each with its own augmentation", "nnU-Net", "nnunet_trainer",
        "hippocampus:model=nnunet", {**HIPPOCAMPUS, **DYNUNET, "model.deep_supervision": 2}, "patients/hippocampus", 150,
        "brain_segment:model=nnunet",
        {"widths": (16, 32, 64, 128), "patch": (24, 40, 24), "classes": 3},
        {**TINY_VOLUMES, "data.ndim": 3, "model.width": 4, "model.depth": 3, "model.deep_supervision": 1},
        {"widths": (4, 8, 16), "patch": (8, 16, 8), "classes": 4}, test=0, scores=quality.segmented, environment="nnunet"),
    "scico_unet": Case(
        "U-Net after FBP, foam", "SCICO", "scico_foam", "ct_recon:source=files,model=unet",
        {**FOAM, "optim.lr": 2e-3, "model.width": 32, "model.depth": 3, "model.norm": "batch"}, "", 150,
        "ct_recon:model=unet", {"network": "UNet", "filters": 32, "depth": 2, "block_depth": 2},
        {**TINY_FOAM, "model.width": 4, "model.depth": 2}, {"filters": 4, "depth": 1}, test=0, made=foam.write,
        environment="scico"),
    "scico_modl": Case(
        "MoDL of 3 iterations, foam", "SCICO", "scico_foam", "ct_recon:source=files,model=modl",
        {**FOAM, "optim.lr": 2e-3, "model.iterations": 3, "model.cg_iterations": 4, "model.layers": 4, "model.width": 32,
         "model.norm": "batch"}, "", 60, "ct_recon:model=modl",
        {"network": "MoDLNet", "filters": 32, "depth": 3, "block_depth": 4, "cg_first": 3, "cg": 4},
        {**TINY_FOAM, "model.width": 4}, {"filters": 4}, test=0, made=foam.write,
        environment="scico"),
    "scico_odp": Case(
        "learned primal-dual beside ODP, foam", "SCICO", "scico_foam", "ct_recon:source=files,model=primal_dual",
        {**FOAM, "optim.lr": 1e-3, "model.iterations": 4, "model.width": 32, "model.memory": 5}, "", 60,
        "ct_recon:model=primal_dual", {"network": "ODPNet", "filters": 32, "depth": 4, "block_depth": 6},
        {**TINY_FOAM, "model.width": 4}, {"filters": 4}, test=0, made=foam.write,
        environment="scico"),
}
# Where float32 convolutions take nearly all of the time, both sides are as fast as the processor; medjax has bfloat16, too.
CASES |= {f"{name}_bf16": replace(CASES[name], title=f"{CASES[name].title}, medjax's in bfloat16",
                                  changes={**CASES[name].changes, "model.dtype": "bfloat16"})
          for name in ("ldct_redcnn", "ldct_resnet")}
