"""Image quality over dose of a low-dose CT run and its references, as medical physics measures it.

    python -m medjax.dose --workdir=runs/lowdose --doses=0.1,0.25,0.5,1 --output=runs/lowdose/dose

Written are `dose.json`, `dose.csv` and `dose.html`: on the test part PSNR and SSIM, the contrast-to-noise ratio and the
detectability of planted lesions, the bias by tissue; on a water phantom noise power, transfer functions and bias in HU.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from absl import flags

from medjax import cli
from medjax.evaluation.dose import REPEATS, DoseStudy, Quality, Settings, study
from medjax.evaluation.lesions import Lesion
from medjax.evaluation.run import next_command
from medjax.files import write_atomically
from medjax.measures.spectra import Curve
from medjax.report import dose as report
from medjax.report.table import aligned
from medjax.types import UserError

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
DOSES = flags.DEFINE_list("doses", ["0.1", "0.25", "0.5", "1"], "Fractions of full dose.")
OUTPUT = flags.DEFINE_string("output", "", "Folder of the results; dose/ in the run's folder if empty.")
CONTRAST = flags.DEFINE_float("contrast", Lesion.contrast, "Of planted lesions and the phantom's insert, in HU.")
DIAMETER = flags.DEFINE_float("diameter", Lesion.diameter_mm, "Of planted lesions, in mm.")
SAMPLES = flags.DEFINE_integer("samples", 32, "Test slices at most, evenly spread; 0 for all.")
SEED = flags.DEFINE_integer("seed", 0, "Of the lesions' places and the phantom's noise.")


def main() -> None:
    """Evaluates, writes the results and prints the table."""
    workdir = Path(WORKDIR.value)
    lesion = Lesion(CONTRAST.value, DIAMETER.value)
    done = study(workdir, Settings(_doses(DOSES.value), lesion, SAMPLES.value, SEED.value))
    folder = Path(OUTPUT.value) if OUTPUT.value else workdir / "dose"
    folder.mkdir(parents=True, exist_ok=True)
    found = {dose: {row: numbers(quality) for row, quality in methods.items()} for dose, methods in done.qualities.items()}
    shown = nearest(done)
    at_shown = {row: quality.phantom for row, quality in done.qualities[shown].items()}
    transfer = {insert: {row: phantom.transfer[insert] for row, phantom in at_shown.items()}
                for insert in at_shown["model"].transfer}
    write_atomically(folder / "dose.csv", report.to_csv(found))
    report.write(folder / "dose.html", title=workdir.name, step=done.step, data=_data(done), found=found, shown=shown,
                 spectra={row: phantom.noise_power for row, phantom in at_shown.items()}, notes=_notes(done),
                 transfer=transfer, config=done.run.config.to_json(indent=1))
    write_atomically(folder / "dose.json", json.dumps(contents(done, found), indent=1))
    print(aligned(report.cells(found)))
    for note in _notes(done):
        print(note)
    print(f"{_data(done)}; written: {folder / 'dose.html'}, dose.json, dose.csv")
    print(next_command(workdir))


def _doses(words: list[str]) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in words)
    except ValueError:
        raise UserError("--doses", f"{','.join(words)}; give numbers with commas between, as 0.1,0.25,1") from None


def numbers(quality: Quality) -> dict[str, float]:
    """What was measured of a method at a dose, as one number each; NaN where there is none."""
    found: dict[str, float] = {}
    for name, standing in {**quality.metrics, "cnr": quality.cnr}.items():
        found |= {name: standing.mean, f"{name}_low": standing.low, f"{name}_high": standing.high}
    found |= asdict(quality.detectability)
    phantom = quality.phantom
    found |= {"noise_hu": phantom.noise_hu, "nps_mean_frequency": phantom.noise_power.mean_frequency}
    for insert, curve in phantom.transfer.items():
        found |= {f"f50_{insert}": curve.f50, f"f10_{insert}": curve.f10}
    for prefix, bias in (("bias_", phantom.bias_hu), ("bias_images_", quality.bias_hu)):
        found |= {prefix + material.replace(" ", "_"): value for material, value in bias.items()}
    return found


def nearest(done: DoseStudy) -> float:
    """The dose, of those evaluated, that is nearest to what the run was trained for."""
    trained = math.sqrt(math.prod(done.run.config.task.dose))
    return min(done.qualities, key=lambda dose: abs(math.log(dose / trained)))


def contents(done: DoseStudy, found: Mapping[float, Mapping[str, Mapping[str, float]]]) -> dict[str, object]:
    """The study as JSON: numbers, and curves over frequency in 1/mm."""
    rows = []
    for dose, methods in done.qualities.items():
        for row, quality in methods.items():
            values = {name: value if math.isfinite(value) else None for name, value in found[dose][row].items()}
            curves = {"noise_power": quality.phantom.noise_power} | {
                f"transfer_{insert}": curve for insert, curve in quality.phantom.transfer.items()}
            rows.append({"dose": dose, "method": row, **values, **{name: _curve(curve) for name, curve in curves.items()}})
    return {"step": done.step, "slices": done.slices, "patients": done.patients, "lesions": done.lesions,
            "phantom_images": REPEATS, **asdict(done.settings), "strengths": done.strengths, "rows": rows}


def _curve(curve: Curve) -> dict[str, list[float]]:
    return {"frequency": curve.frequency.tolist(), "value": curve.value.tolist()}


def _data(done: DoseStudy) -> str:
    return f"{done.slices} test slices of {done.patients} patients, {done.lesions} lesions"


def _notes(done: DoseStudy) -> list[str]:
    """How the numbers came about."""
    lesion = done.settings.lesion
    disc = f"{lesion.contrast:g} HU"
    notes = ["Test images: PSNR and SSIM as means over patients; CNR and d′ (channelised Hotelling observer, 95 % interval "
             f"over patients) of discs of {disc} and {lesion.diameter_mm:g} mm in soft tissue; mean error by tissue.",
             f"Water phantom ({REPEATS} images): noise; mean frequency of its power; where the transfer function of inserts "
             f"of {disc} and of bone is 0.5 (–: not below the Nyquist frequency); mean error by material."]
    if done.run.config.task.measured:
        notes.append("The scans have noise of their own, to which only what is missing is added. At full dose that is "
                     "nothing, so a scan is its own truth and has no PSNR and SSIM there.")
    if done.patients < 2:
        notes.append("One patient: nothing is said of others, so there are no intervals and no d′.")
    return notes


if __name__ == "__main__":
    cli.run(main)
