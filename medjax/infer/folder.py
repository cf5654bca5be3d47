"""The folder of an exported run: its models, the manifest that says what they are, and the script that runs them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from medjax.files import move, staging, write_atomically
from medjax.infer import standalone
from medjax.infer.export import Exported, Program
from medjax.types import Port

MANIFEST, SCRIPT, CARD = "manifest.json", "run.py", "model_card.md"
VERSIONS = ("medjax", "jax", "jaxlib", "flax", "numpy", "jax2onnx", "onnx", "onnxruntime")


def write(target: Path, manifest: Mapping[str, Any], models: Sequence[Exported], card: str) -> dict[str, int]:
    """Writes a new folder, whole or not at all; returns the bytes of each file. `card` is the model card."""
    written = {model.file: model.data for model in models}
    written |= {SCRIPT: Path(standalone.__file__).read_bytes(), CARD: card.encode()}
    files = {name: {"bytes": len(data), "sha256": _sha256(data)} for name, data in written.items()}
    written[MANIFEST] = json.dumps({**manifest, "files": files}, indent=1, ensure_ascii=False).encode()
    with staging(target.parent) as folder:
        (folder / target.name).mkdir()
        for name, content in written.items():
            write_atomically(folder / target.name / name, content)
        move(folder / target.name, target)
    return {name: len(data) for name, data in written.items()}


def contents(program: Program, models: Sequence[Exported], step: int, identity: str) -> dict[str, Any]:
    """The manifest: what the model is, what goes in and comes out, what it was trained on."""
    config = program.run.config
    domain, units = config.data.domain, config.data.domain.units or "units"
    output = _port(program.output, units) | {"scale": list(program.scale()), "as_input": program.output.as_input}
    return {"task": config.task.name, "network": "+".join(config[key].name for key in program.run.objective.predictors),
            "objective": config.objective.name, "step": step, "checkpoint": identity, "units": units,
            "data_range": list(config.data.range), "normalise": config.data.normalise, "ndim": program.run.task.input_ndim,
            "inputs": [_port(port, units) for port in program.inputs], "output": output, "pads": program.pads,
            "training": {"modality": domain.modality, "contrasts": list(domain.contrasts),
                         "spacing_mm": list(domain.spacing_mm), "percentiles": list(domain.percentiles)},
            "models": {model.format: {"file": model.file, "sha256": _sha256(model.data), "difference": model.difference,
                                      "shapes": [list(shape) for shape in model.shapes], **model.facts} for model in models},
            "versions": _versions()}


def _port(port: Port, units: str) -> dict[str, Any]:
    shape = ["b", *port.shape] if port.shape else []
    return {"name": port.name, "shape": shape, "meaning": port.meaning, "unit": port.unit.format(units=units),
            "channels": list(port.channels)}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _versions() -> dict[str, str]:
    found = {}
    for name in VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
