"""MONAI's metrics: Dice, IoU, Hausdorff and surface distances, surface Dice, confusion, ROC AUC, errors, PSNR, SSIM, FID.

MONAI's classes stay, with their batches and means; the functions that compute a number from two arrays are medjax's.
"""

import math
from collections.abc import Sequence
from typing import Any

import monai.metrics
import numpy as np
import torch
from in_peer import link
from in_peer.link import LackingError, call, only, translates
from monai.metrics import (
    confusion_matrix,
    f_beta_score,
    fid,
    hausdorff_distance,
    meandice,
    meaniou,
    regression,
    rocauc,
    surface_dice,
    surface_distance,
)
from monai.metrics.utils import ignore_background, prepare_spacing

RATES = {"mcc": "mcc", "tpr": "recall", "ppv": "precision", "f1": "f1"}  # MONAI's names of what medjax has


def replace() -> None:
    metrics = monai.metrics
    link.replace(meandice.DiceHelper, "compute_channel", dice_of_channel)
    link.replace(meaniou, "compute_iou", compute_iou, metrics)
    link.replace(hausdorff_distance, "compute_hausdorff_distance", compute_hausdorff, metrics)
    link.replace(surface_distance, "compute_average_surface_distance", compute_surface_distance, metrics)
    link.replace(surface_dice, "compute_surface_dice", compute_surface_dice, metrics)
    link.replace(confusion_matrix, "compute_confusion_matrix_metric", compute_rate, metrics)
    link.replace(f_beta_score, "compute_f_beta_score", compute_f_beta)
    link.replace(rocauc, "_calculate", auc)
    for metric, name in ((regression.MSEMetric, "mse"), (regression.MAEMetric, "mae")):
        link.replace(metric, "_compute_metric", error_of(name))
    link.replace(regression.PSNRMetric, "_compute_metric", psnr)
    link.replace(regression.SSIMMetric, "_compute_metric", ssim)
    link.replace(fid, "get_fid_score", frechet, metrics)


def last(images: torch.Tensor) -> np.ndarray:
    """Channels last."""
    return np.moveaxis(images.detach().cpu().numpy(), 1, -1)


def regions(y_pred: Any, y: Any, include_background: bool) -> tuple[np.ndarray, np.ndarray]:
    """The classes that count, as masks `(B, *space, K)`."""
    if not include_background:
        y_pred, y = ignore_background(y_pred=y_pred, y=y)
    return last(torch.as_tensor(y_pred)) > 0.5, last(torch.as_tensor(y)) > 0.5


def dice_of_channel(helper: Any, y_pred: torch.Tensor, y: torch.Tensor, mask: Any = None) -> torch.Tensor:
    only(mask=(mask, None), ignore_empty=(helper.ignore_empty, True))
    masks = [v.numpy()[None, ..., None] > 0.5 for v in (y_pred, y)]
    found = float(call("overlap", *masks)[0][0, 0])
    return torch.tensor(math.nan if translates("empty_truth", found == 0 and not masks[1].any()) else found)


def compute_iou(y_pred: torch.Tensor, y: torch.Tensor, include_background: bool = True, ignore_empty: bool = True,
                ignore_index: int | None = None) -> torch.Tensor:
    only(ignore_empty=(ignore_empty, True), ignore_index=(ignore_index, None))
    masks = regions(y_pred, y, include_background)
    found, absent = call("overlap", *masks)[1].copy(), ~empty_or_not(masks[1])
    if translates("empty_truth", (absent & (found == 0)).any()):
        found[absent] = math.nan
    return torch.from_numpy(found)


def empty_or_not(mask: np.ndarray) -> np.ndarray:
    """Whether a region has a voxel, `(B, K)`."""
    return np.any(mask, tuple(range(1, mask.ndim - 1)))


def compute_hausdorff(y_pred: Any, y: Any, include_background: bool = False, distance_metric: str = "euclidean",
                      percentile: float | None = None, directed: bool = False, spacing: Any = None,
                      ignore_index: int | None = None) -> torch.Tensor:
    only(distance_metric=(distance_metric, "euclidean"), directed=(directed, False), ignore_index=(ignore_index, None))
    masks = regions(y_pred, y, include_background)
    apart = call("distances", *masks, spacings(spacing, masks[0]))
    found = call("hausdorff", apart, percentile or 100.0)
    if percentile and translates("percentile", percentile != 100):
        found = np.nanpercentile(apart, percentile, axis=tuple(range(2, apart.ndim - 1))).max(1)
    return torch.from_numpy(infinite(found, *masks))


def infinite(found: np.ndarray, *masks: np.ndarray) -> np.ndarray:
    """Distances that MONAI calls infinite: where one of the regions is empty."""
    here, there = (empty_or_not(mask) for mask in masks)
    return np.where(here != there, np.float32(np.inf), found) if translates("empty_region", (here != there).any()) else found


def compute_surface_distance(y_pred: Any, y: Any, include_background: bool = False, symmetric: bool = False,
                             distance_metric: str = "euclidean", spacing: Any = None,
                             ignore_index: int | None = None) -> torch.Tensor:
    only(distance_metric=(distance_metric, "euclidean"), symmetric=(symmetric, True), ignore_index=(ignore_index, None))
    masks = regions(y_pred, y, include_background)
    apart = call("distances", *masks, spacings(spacing, masks[0]))
    return torch.from_numpy(infinite(call("surface_distance", apart), *masks))


def compute_surface_dice(y_pred: torch.Tensor, y: torch.Tensor, class_thresholds: list[float],
                         include_background: bool = False, distance_metric: str = "euclidean", spacing: Any = None,
                         use_subvoxels: bool = False, ignore_index: int | None = None) -> torch.Tensor:
    """Each class has a tolerance of its own."""
    only(distance_metric=(distance_metric, "euclidean"), use_subvoxels=(use_subvoxels, False),
         ignore_index=(ignore_index, None))
    if not (torch.is_tensor(y_pred) and torch.is_tensor(y)) or y_pred.ndim not in (4, 5) or y_pred.shape != y.shape:
        raise LackingError("checks of the arguments")
    masks = regions(y_pred, y, include_background)
    if len(class_thresholds) != masks[0].shape[-1] or not all(math.isfinite(t) and t >= 0 for t in class_thresholds):
        raise LackingError("checks of the arguments")
    apart = call("distances", *masks, spacings(spacing, masks[0]))
    found = [call("surface_dice", apart[..., k:k + 1], float(tolerance)) for k, tolerance in enumerate(class_thresholds)]
    return torch.from_numpy(np.concatenate(found, -1))


def spacings(spacing: Any, masks: np.ndarray) -> np.ndarray:
    """The voxel sizes of every sample."""
    each = prepare_spacing(spacing=spacing, batch_size=len(masks), img_dim=masks.ndim - 2)
    return np.array([[1.0] * (masks.ndim - 2) if one is None else one for one in each], float)


def compute_rate(metric_name: str, matrix: torch.Tensor) -> torch.Tensor:
    name = confusion_matrix.check_confusion_matrix_metric_name(metric_name)
    if name not in RATES:
        raise LackingError(metric_name)
    return rate(RATES[name], matrix)


def compute_f_beta(matrix: torch.Tensor, beta: float) -> torch.Tensor:
    only(beta=(float(beta), 1.0))
    return rate("f1", matrix)


def rate(name: str, matrix: torch.Tensor) -> torch.Tensor:
    """Of maps with as many true and false positives, true and false negatives (tp, fp, tn, fn) as `matrix` says."""
    counts = np.asarray(matrix, np.float64)
    if not np.array_equal(counts, counts.round()):  # means over samples, or NaN
        raise LackingError("a matrix of no whole numbers")
    return torch.tensor([_rate(name, *row) for row in counts.reshape(-1, 4).astype(int)], dtype=torch.float).reshape(
        matrix.shape[:-1] if matrix.ndim > 1 else (1,))


def _rate(name: str, tp: int, fp: int, tn: int, fn: int) -> float:
    found, truth = np.repeat([[True, True], [True, False], [False, False], [False, True]], [tp, fp, tn, fn], axis=0).T
    if name == "mcc":
        return float(call("mcc", found[None, :, None], truth[None, :, None])[0, 0])
    of, divisor = {"precision": (0, tp + fp), "recall": (1, tp + fn), "f1": (2, tp + fp + fn)}[name]
    rates = call("precision_recall_f1", found[:, None], truth[:, None])
    return math.nan if translates("nothing_there", divisor == 0) else float(rates[of][0])


def auc(y_pred: torch.Tensor, y: torch.Tensor) -> float:
    if not set(y.unique().tolist()) <= {0, 1}:
        raise LackingError("labels other than 0 and 1")
    return float(call("auroc", y_pred.numpy(), y.numpy() > 0.5))


def error_of(name: str) -> Any:
    def error(metric: Any, y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(call(name, last(y_pred), last(y)))[:, None]

    return error


def psnr(metric: Any, y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    found = call("psnr", last(y_pred), last(y), float(metric.max_val))
    if translates("psnr_cap", (found >= 200).any()):
        found = np.where(found >= 200, np.float32(np.inf), found)
    return torch.from_numpy(found)[:, None]


def ssim(metric: Any, y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    only(kernel_type=(str(metric.kernel_type), "gaussian"), win_size=(set(_each(metric.kernel_size)), {11}),
         kernel_sigma=(set(_each(metric.kernel_sigma)), {1.5}), k1=(metric.k1, 0.01), k2=(metric.k2, 0.03))
    return torch.from_numpy(call("ssim", last(y_pred), last(y), float(metric.data_range)))[:, None]


def _each(value: Any) -> Sequence[Any]:
    return value if isinstance(value, Sequence) else [value]


def frechet(y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    if y.ndim != 2:
        raise LackingError("checks of the arguments")
    return torch.tensor(float(call("frechet", y_pred.double().numpy(), y.double().numpy())))
