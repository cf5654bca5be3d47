"""Small files beside images that BIDS knows (JSON, b-values, directions), reduced to numbers and known words."""

import json
import math
import re
from pathlib import Path
from typing import Any

from medjax.files import write_atomically
from medjax.types import UserError

SUFFIXES = (".json", ".bval", ".bvec")
NUMBERS = {"EchoTime", "EchoTime1", "EchoTime2", "RepetitionTime", "RepetitionTimeExcitation", "RepetitionTimePreparation",
           "InversionTime", "FlipAngle", "MagneticFieldStrength", "ImagingFrequency", "SliceTiming", "SliceThickness",
           "SpacingBetweenSlices", "EffectiveEchoSpacing", "DwellTime", "TotalReadoutTime", "EchoTrainLength",
           "MultibandAccelerationFactor", "ParallelReductionFactorInPlane", "PartialFourier", "PixelBandwidth",
           "PercentSampling", "PercentPhaseFOV", "NumberOfVolumesDiscardedByScanner", "LabelingDuration",
           "PostLabelingDelay", "BackgroundSuppressionPulseTime", "TotalAcquiredPairs", "InjectedRadioactivity",
           "FrameTimesStart", "FrameDuration", "SAR", "ReconMatrixPE", "AcquisitionMatrixPE", "BaseResolution"}
BOOLEANS = {"NonlinearGradientCorrection", "MTState", "SpoilingState", "BackgroundSuppression", "M0Estimate"}
WORDS = {"PhaseEncodingDirection": "[ijk]-?", "SliceEncodingDirection": "[ijk]-?", "MRAcquisitionType": "[123]D",
         "Modality": "MR|CT|PT|NM|US", "Manufacturer": "Siemens|GE|Philips|Canon|Toshiba|Hitachi|UIH|Bruker",
         "PulseSequenceType": "Gradient Echo|Spin Echo|Gradient Echo EPI|Spin Echo EPI|MPRAGE",
         "ArterialSpinLabelingType": "P?CASL|PASL|VSASL", "Units": "arbitrary|rad|Hz|Bq/mL|rad/s"}


def write_bare(target: Path, path: Path) -> int:
    """What may be kept of a sidecar, as a file; returns how many fields were not. Raises UserError for a damaged file."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix.lower() != ".json":
            lines = [" ".join(f"{float(number):.10g}" for number in line.split()) for line in text.splitlines()]
            write_atomically(target, "\n".join(lines) + "\n")
            return 0
        fields = json.loads(text)
    except (OSError, ValueError) as error:
        raise UserError(path, "can't be read as a table of numbers or as JSON") from error
    if not isinstance(fields, dict):
        raise UserError(path, "is no JSON sidecar: it has no fields")
    kept = {key: value for key, value in fields.items() if _known(key, value)}
    write_atomically(target, json.dumps(kept, indent=2) + "\n")
    return len(fields) - len(kept)


def _known(key: str, value: Any) -> bool:
    if key in NUMBERS:
        values = value if isinstance(value, list) else [value]
        return all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values)
    if key in BOOLEANS:
        return isinstance(value, bool)
    return key in WORDS and isinstance(value, str) and re.fullmatch(WORDS[key], value) is not None
