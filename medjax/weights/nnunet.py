"""nnU-Net's `PlainConvUNet` and `ResidualEncoderUNet` (package dynamic-network-architectures) in 2-D or 3-D, as
`checkpoint_final.pth` of nnU-Net v2 has them, the outputs of coarser levels among them.

Stages, widths, kernels, strides and blocks follow from the shapes. What no shape says, the activation, is nnU-Net's leaky
ReLU, or what `plans.json` says beside the weights or in the folder above, where nnU-Net puts it. Of the plans'
configurations the one with this network counts; it also says the size of patches, and how CT is scaled; `dataset.json`
beside it names the classes. The run does not resample to the plans' voxels, and takes the axes as they lie in the patient,
slices first; nnU-Net takes those of the file, the one with the largest voxels first.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from medjax.models.blocks import LEAKS
from medjax.models.nnunet import sizes
from medjax.types import UserError
from medjax.weights._segmentation import of_images
from medjax.weights._table import Row, Shapes, layer, norm

TITLE = "nnU-Net"
CONFIG = "configs/brain_segment.py:model=nnunet"
PREFIXES = ("_orig_mod.",)
PREPARATION = ("CT by the plans (config.data.range); others have mean 0 and deviation 1 in nnU-Net: give such images; "
               "resampling to the plans' voxels is yours")
PLANS, DATASET = "plans.json", "dataset.json"
FIRST = {"plain": "encoder.stages.0.0.convs.0", "residual": "encoder.stem.convs.0"}


def settings(shapes: Shapes) -> dict[str, object]:
    """The whole architecture, channels and classes. Raises UserError for blocks that the model has not."""
    encoder = "residual" if f"{FIRST['residual']}.conv.weight" in shapes else "plain"
    first, inside = FIRST[encoder], ".blocks.{}.conv1" if encoder == "residual" else ".0.convs.{}"
    if "encoder.stages.0.blocks.0.conv3.conv.weight" in shapes:
        raise UserError("config.model.encoder", "the weights have residual blocks of three convolutions (BottleneckD); "
                        "nnunet has those of two (BasicBlockD), as nnU-Net's plans do")
    depth = 1 + shapes.count("decoder.transpconvs.{}.weight")
    stages = [f"encoder.stages.{level}{inside}" for level in range(depth)]
    kernels = [shapes[stage.format(0) + ".conv.weight"] for stage in stages]
    steps = [shapes[f"decoder.transpconvs.{depth - 2 - level}.weight"][2:] for level in range(depth - 1)]
    decoder = [f"decoder.stages.{depth - 2 - level}.convs.{{}}.conv.weight" for level in range(depth - 1)]
    ends = shapes[f"decoder.seg_layers.{depth - 2}.weight"]
    return {**of_images(shapes[f"{first}.conv.weight"], ends), "model.encoder": encoder, "model.depth": depth,
            "model.widths": tuple(shape[0] for shape in kernels), "model.kernels": tuple(shape[2:] for shape in kernels),
            "model.strides": ((1,) * (len(ends) - 2), *steps), "model.deep_supervision": depth - 2,
            "model.blocks": tuple(shapes.count(stage + ".conv.weight") for stage in stages),
            "model.decoder_blocks": tuple(map(shapes.count, decoder)), "model.bias": f"{first}.conv.bias" in shapes,
            "model.decoder_kernels": tuple(shapes[stage.format(0)][2:] for stage in decoder),
            "model.norm": "batch" if f"{first}.norm.running_mean" in shapes else "instance",
            "model.act": "leaky_relu_0.01"}


def beside(file: Path, found: Mapping[str, object]) -> dict[str, object]:
    """What the plans near the weights say. Raises UserError for plans of other networks, or of what the model has not."""
    path = next((folder / PLANS for folder in (file.parent, file.parent.parent) if (folder / PLANS).is_file()), None)
    plans = {} if path is None else _json(path)
    known = {name: plan for name, plan in plans.get("configurations", {}).items() if "architecture" in plan}
    if path is None or not known:  # old plans describe no architecture
        return {}
    same = [name for name, plan in known.items() if _stages(plan["architecture"]) == _found(found)]
    named = [name for name in same if path.parent.name.endswith(f"__{name}")]
    if not same:
        raise UserError(path, f"none of its configurations ({', '.join(known)}) has the network of "
                        f"{file.name}; move it away if it is of others")
    plan = known[(named or same)[0]]
    said: dict[str, object] = {"model.act": _activation(path, plan["architecture"]["arch_kwargs"])}
    if "patch_size" in plan:
        said["data.patch"] = tuple(plan["patch_size"])
    values = plans.get("foreground_intensity_properties_per_channel", {})
    if plan.get("normalization_schemes") == ["CTNormalization"] and "0" in values:
        said["data.range"] = (values["0"]["mean"], values["0"]["mean"] + values["0"]["std"])
    labels = _json(path.with_name(DATASET)).get("labels", {}) if path.with_name(DATASET).is_file() else {}
    if sorted(map(str, labels.values())) == sorted(map(str, range(len(found["task.classes"])))):  # type: ignore[arg-type]
        said["task.classes"] = tuple(sorted(labels, key=lambda name: int(labels[name])))
    return said


def rows(model: Mapping[str, Any]) -> list[Row]:
    """The table. The original has each layer twice, the second time as a step of its block, and the encoder also inside of
    the decoder. Raises UserError for networks that nnU-Net's files can't have.
    """
    if model["deep_supervision"] != model["depth"] - 2:
        raise UserError("config.model.deep_supervision", f"{model['deep_supervision']}, and nnU-Net's files have an output "
                        f"for each coarser level of the decoder; give {model['depth'] - 2}")
    if model["norm"] not in ("instance", "batch"):
        raise UserError("config.model.norm", f"{model['norm']}; nnU-Net's files have instance or batch")
    depth, bias, batch = model["depth"], model["bias"], model["norm"] == "batch"
    widths, blocks, decoder_blocks = sizes(dict(model)).values()
    strides = tuple(model["strides"]) or (1, *[2] * depth)

    def unit(there: str, conv: str, normal: str, bias: bool = bias) -> list[Row]:
        return [row for names in (("conv", "norm"), ("all_modules.0", "all_modules.1"))
                for row in (*layer(f"{there}.{names[0]}", conv, bias), *norm(f"{there}.{names[1]}", normal, batch))]

    def plain(there: str, here: str) -> list[Row]:
        return unit(there, f"{here}/Conv_0", f"{here}/Norm_0")

    def residual(there: str, here: str, shortcut: str) -> list[Row]:
        found = plain(f"{there}.conv1", f"{here}/ConvNormAct_0")
        found += unit(f"{there}.conv2", f"{here}/Conv_0", f"{here}/Norm_0")
        return found + unit(f"{there}.skip.{shortcut}", f"{here}/Conv_1", f"{here}/Norm_1", False) if shortcut else found

    def encoder(name: str) -> list[Row]:
        found = plain(f"{name}.stem.convs.0", "stem") if model["encoder"] == "residual" else []
        for level in range(depth):
            for i in range(blocks[level]):
                here = f"encoder{level}_{i}"
                if model["encoder"] == "plain":
                    found += plain(f"{name}.stages.{level}.0.convs.{i}", here)
                    continue
                wider = not i and level and widths[level] != widths[level - 1]
                strided = np.prod(strides[level]) > 1  # a mean comes first
                found += residual(f"{name}.stages.{level}.blocks.{i}", here, ("1" if strided else "0") if wider else "")
        return found

    found = [*encoder("encoder"), *encoder("decoder.encoder")]
    levels = list(reversed(range(depth - 1)))
    for there, level in enumerate(levels):
        for i in range(decoder_blocks[level]):
            found += plain(f"decoder.stages.{there}.convs.{i}", f"decoder{level}_{i}")
    for there, level in enumerate(levels):
        found += layer(f"decoder.transpconvs.{there}", f"up{level}", bias)
    for there, level in enumerate(levels):
        found += layer(f"decoder.seg_layers.{there}", f"head{level}")
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(path, f"can't be read as JSON ({error}); put a sound copy there, or move it away") from error
    return found if isinstance(found, dict) else {}


def _stages(architecture: Mapping[str, Any]) -> tuple[object, ...]:
    """The network of a configuration, to be compared with `_found`."""
    given = architecture.get("arch_kwargs", {})
    residual = str(architecture.get("network_class_name", "")).endswith("ResidualEncoderUNet")
    sizes = [tuple(tuple(size) if isinstance(size, list) else size for size in given.get(key, ()))
             for key in ("kernel_sizes", "strides")]
    counts = [tuple(given.get(key, ())) for key in ("features_per_stage", "n_blocks_per_stage" if residual else
                                                    "n_conv_per_stage")]
    return "residual" if residual else "plain", *sizes, *counts


def _found(found: Mapping[str, object]) -> tuple[object, ...]:
    return tuple(found[f"model.{key}"] for key in ("encoder", "kernels", "strides", "widths", "blocks"))


def _activation(path: Path, given: Mapping[str, Any]) -> str:
    """The activation of a network. Raises UserError for one that the model has not, and for another order of layers."""
    name, options = str(given.get("nonlin")).rpartition(".")[2], given.get("nonlin_kwargs") or {}
    slope = {"ReLU": 0.0, "LeakyReLU": options.get("negative_slope", 0.01)}.get(name)
    known = [act for act, leak in LEAKS.items() if leak == slope]
    eps = (given.get("norm_op_kwargs") or {}).get("eps", 1e-5)
    if not known or eps != 1e-5 or given.get("nonlin_first"):
        raise UserError(path, f"its network has {name}({slope}) and a normalisation with eps {eps}"
                        f"{', after the activation' if given.get('nonlin_first') else ''}; nnunet has ReLU or LeakyReLU("
                        f"{', '.join(f'{leak:g}' for leak in LEAKS.values() if 0 < leak < 1)}) after one with eps 1e-05")
    return known[0]
