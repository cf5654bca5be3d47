"""Trains configs as a user would, keeps what their evaluation printed, and writes the tables of docs/scores.md from it.

    python -m benchmarks.scores                     # every row, hours; or only some:
    python -m benchmarks.scores quickstart sequence
    python -m benchmarks.scores hippocampus --config.data.path=FOLDER
    python -m benchmarks.scores htc2022 --data=FOLDER   # trained on drawn discs, evaluated on the folder
    python -m benchmarks.scores --tables            # no training: the tables from what is there

Each row has a file in `benchmarks/results/scores`, with the config's values: tests/test_scores.py fails where one has
changed since, and where a table, the README or the docstring of a config does not say what the files do.
"""

import csv
import importlib
import json
import math
import os
import re
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from benchmarks import speed_tables
from benchmarks.privacy_tables import MEMBERSHIP, defaced, members
from benchmarks.processes import ROOT, commit, cpu_seconds, run
from medjax import registry
from medjax.evaluation.compare import metrics_of
from medjax.files import write_atomically
from medjax.measures.statistics import Standing
from medjax.report.table import best, standing_cells, texts
from medjax.train.run import Config, assemble
from medjax.types import Metric

TABLES = flags.DEFINE_bool("tables", False, "Writes the tables only.")
DATA = flags.DEFINE_string("data", "", "A file or folder to evaluate on instead of the run's own data.")
RUNS = flags.DEFINE_string("runs", "", "Folder for the runs, which are kept there; a temporary one if none is given.")

SCORES = Path(__file__).with_name("results") / "scores"
DOSE, INTERVALS = SCORES.with_name("dose_slices.json"), SCORES.with_name("intervals_brains.json")
PRIVACY, DEIDENTIFY = ROOT / "docs" / "privacy.md", ROOT / "docs" / "deidentify.md"
SEAM = SCORES.with_name("seam.json")
QUALITY, UNCERTAINTY = ROOT / "docs" / "quality.md", ROOT / "docs" / "uncertainty.md"
LESIONS, EXPLAIN = ROOT / "docs" / "lesions.md", ROOT / "docs" / "explain.md"
CHECKED: dict[str, tuple[Path, tuple[str, ...]]] = {  # by benchmarks.checks: the file of results, and the rows it is of
    name: (SCORES.with_name(f"{name}.json"), rows) for name, rows in {
        "lesions_brains": ("brain_denoise",), "lesions_slices": ("slices_lowdose",),
        "consistency": ("inpaint", "mri_recon", "ct_recon"), "explanations": ("xray_classify",)}.items()}
PAGE, README = ROOT / "docs" / "scores.md", ROOT / "README.md"
SPEED = ROOT / "benchmarks" / "README.md"
BEGIN, END = "<!-- scores: {} -->", "<!-- end -->"
MEASURED = "Measured (docs/scores.md):\n"  # in the docstring of a config; indented lines follow

# name: config with its argument, and what differs from it
BUILT_IN: dict[str, tuple[str, dict[str, Any]]] = {
    "quickstart": ("quickstart", {}),
    "salt_and_pepper": ("quickstart", {"task.noise": "salt_pepper", "steps": 1400}),
    "deblur": ("deblur", {}),
    "inpaint": ("inpaint", {}),
    "superres": ("mri_superres3d:axes=in_plane", {}),
    "mri_superres3d": ("mri_superres3d", {}),
    "mri_srgan": ("mri_srgan", {}),
    "sequence": ("sequence", {}),
    "sequence_twice_finer": ("sequence", {"task.factor": 2}),
    "fuse": ("fuse", {}),
    "enhance_xray": ("enhance_xray", {}),
    "enhance_xray_zero": ("enhance_xray:learn=zero", {}),
    "ct_recon": ("ct_recon", {}),
    "ct_lowdose": ("ct_lowdose", {}),
    "mri_recon": ("mri_recon", {}),
    "volume": ("volume", {}),
    "translate": ("translate", {}),
    "pix2pix": ("translate:objective=adversarial", {}),
    "cyclegan": ("translate:objective=cycle,model=cyclegan_generator", {}),
    "register": ("register", {}),
    "brain_segment": ("brain_segment", {}),
    "xray_classify": ("xray_classify", {}),
    "anomaly": ("anomaly", {}),
    "compress": ("compress", {}),
    "synthesis": ("synthesis", {}),
}
BRAINS = {"data.source.match": "*_T1w.nii.gz", "data.fractions": (0.4, 0.1, 0.5), "data.normalise": "volume"}
PEOPLE: dict[str, tuple[str, dict[str, Any]]] = {
    "brain_denoise": ("quickstart:source=files", {**BRAINS, "model.width": 16, "steps": 1400}),
    "brain_superres": ("mri_superres3d:axes=in_plane,source=files", BRAINS),
    "brain_through_plane": ("mri_superres3d:axes=through_plane,source=files", BRAINS),
    "brain_register": ("register:source=files", BRAINS),
    "brain_tissues": ("brain_segment:labels=tissues", {}),
    "hippocampus": ("hippocampus", {}),
    "polyps": ("polyps", {}),
    "films_denoise": ("xray_denoise:source=files", {}),
    "films_enhance": ("enhance_xray:source=files,model=zero_dce", {}),
    "ultrasound": ("ultrasound", {}),
    "slices_lowdose": ("ct_lowdose:source=files,model=unet", {}),
    "slices_sparse": ("ct_recon:source=files,model=unet", {}),
}
MEASURED_DATA: dict[str, tuple[str, dict[str, Any]]] = {
    "htc2022": ("htc2022", {"references": ("fbp-otsu",)}),
}
OTHER: dict[str, tuple[str, dict[str, Any]]] = {  # what other benchmarks train
    INTERVALS.stem: ("quickstart:source=files", {**BRAINS, "data.fractions": (0.3, 0.2, 0.5), "model.width": 16,
                                                 "steps": 1400, "references": ("none",)}),
    SEAM.stem: ("quickstart:source=files", {**BRAINS, "data.ndim": 3, "data.patch": (16, 64, 64), "model.width": 8,
                                            "batch_size": 2, "steps": 600, "eval_every": 300, "eval_samples": 4,
                                            "references": ("none",)}),
}
FEW_PEOPLE = {"data.source.match": "*_T1w.nii.gz", "data.fractions": (0.4, 0.1, 0.5), "data.range": (0.0, 4095.0),
              "model.width": 8, "model.depth": 2, "steps": 300, "eval_every": 100}
OTHER |= {f"{MEMBERSHIP.stem}_{name}": ("quickstart:source=files", FEW_PEOPLE | changes) for name, changes in {
    "plain": {},
    "epsilon_50": {"privacy.epsilon": 50.0, "privacy.delta": 1e-2, "privacy.samples": 4, "privacy.clip": 0.1},
    "epsilon_10": {"privacy.epsilon": 10.0, "privacy.delta": 1e-2, "privacy.samples": 4, "privacy.clip": 0.1}}.items()}
ROWS = BUILT_IN | PEOPLE | MEASURED_DATA


def config_of(name: str) -> Config:
    """The config of a row, as `train.py` is given it."""
    spec, changes = (ROWS | OTHER)[name]
    module, _, argument = spec.partition(":")
    config = importlib.import_module(f"configs.{module}").get_config(*([argument] if argument else []))
    config.update_from_flattened_dict(changes)
    return config


def values_of(config: Config) -> dict[str, Any]:
    """Every value of a config by its key, as JSON has it, without where a user's files are."""
    flat = json.loads(json.dumps(registry.flat(config)))
    return {key: value for key, value in flat.items() if key.rpartition(".")[2] != "path"}


def command_of(name: str) -> str:
    """What a user types to get the row."""
    spec, changes = (ROWS | OTHER)[name]
    module, colon, argument = spec.partition(":")
    words = [f"--config=configs/{module}.py{colon}{argument}",
             *(f"--config.{key}={shlex.quote(str(value))}" for key, value in changes.items())]
    return f"python train.py {' '.join(words)}"


def measure(name: str, runs: Path, more: Sequence[str], data: str = "") -> dict[str, Any]:
    """Trains a row in a folder of its own below `runs`, with further flags, and evaluates it, or what is in `data`."""
    workdir = runs / name
    words = shlex.split(command_of(name))[1:]
    before = cpu_seconds()
    run(*words, f"--workdir={workdir}", *more)
    seconds = cpu_seconds() - before
    if data:
        run("eval.py", f"--workdir={workdir}", f"--data={data}", "--names")
    folder = workdir / ("eval_data" if data else "eval")
    found = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    config = Config(json.loads((workdir / "config.json").read_text(encoding="utf-8")))
    samples = {"by_sample": _by_sample(folder, config.metric)} if data else {}
    return {"command": command_of(name), **samples, "config": values_of(config_of(name)), "commit": commit(),
            "cpu_seconds": round(seconds), "cores": os.cpu_count(), "step": found["step"], "samples": found["n"],
            "patients": found["patients"], "metric": config.metric,
            "metrics": {key: vars(metric) for key, metric in metrics_of(assemble(config)).items()},
            "rows": found["rows"], "standings": found["standings"].get(config.metric, {}), "strengths": found["strengths"]}


def _by_sample(folder: Path, metric: str) -> dict[str, dict[str, float]]:
    """A metric of every row, for each sample of an evaluation."""
    found: dict[str, dict[str, float]] = {}
    with (folder / "per_sample.csv").open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            found.setdefault(line["row"], {})[line["sample"]] = float(line[metric])
    return found


def table(names: Sequence[str]) -> str:
    """The rows that are measured: the network, the best reference, and the other references in order."""
    lines = ["| row | metric | network | best reference | network − reference, p | others | test | CPU minutes |",
             "|---|---|---|---|---|---|---|---|"]
    lines += [_line(found) for name in names if (found := _measured(name)) is not None]
    return "\n".join(lines)


def _measured(name: str) -> dict[str, Any] | None:
    """What was measured of a row, if it has been."""
    path = SCORES / f"{name}.json"
    found: dict[str, Any] | None = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    return found


def _test_part(found: Mapping[str, Any]) -> str:
    return f"{found['samples']} images, {found['patients']} patient{'s' * (found['patients'] != 1)}"


def _line(found: Mapping[str, Any]) -> str:
    metric = Metric(**found["metrics"][found["metric"]])
    rows = {row: {key: math.nan if value is None else value for key, value in values.items()}
            for row, values in found["rows"].items()}
    others = {row: values for row, values in rows.items() if row not in ("model", "input")}
    order: list[str] = []
    while (leader := best(others, metric, [row for row in others if row not in order])) is not None:
        order.append(leader)
    shown = dict(zip(rows, texts(metric, [rows[row].get(metric.name) for row in rows]), strict=True))
    standings = {row: Standing.of(numbers) for row, numbers in found["standings"].items()}
    cells = {line[0]: line for line in standing_cells(standings, metric, "model")[1:]} if standings else {}
    shown |= {row: line[1] for row, line in cells.items()}  # means over patients, as their intervals
    interval = cells["model"][2] if "model" in cells else "–"
    network = shown["model"] + (f" ({interval})" if interval != "–" else "")
    strength = {row: f" at {value:g}" for row, value in found["strengths"].items()}
    reference = f"{order[0]}{strength.get(order[0], '')}: {shown[order[0]]}" if order else "–"
    gap = f"{cells[order[0]][3]}, {cells[order[0]][4]}" if order and order[0] in cells else "–"
    rest = ", ".join(f"{row} {shown[row]}" for row in ([*order[1:], "input"] if "input" in rows else order[1:]))
    return (f"| `{found['command'].removeprefix('python train.py --config=configs/')}` | {metric.heading} | {network} | "
            f"{reference} | {gap} | {rest or '–'} | {_test_part(found)} | {found['cpu_seconds'] / 60:.1f} |")


def by_sample(name: str) -> str:
    """A table with every sample of a row that was evaluated on another folder."""
    found = _measured(name)
    if found is None:
        return ""
    metric, rows = Metric(**found["metrics"][found["metric"]]), found["by_sample"]
    names = sorted(rows["model"])
    lines = [f"| {metric.heading} | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    return "\n".join([*lines, *(f"| {row} | {' | '.join(texts(metric, [values[one] for one in names]))} |"
                                for row, values in rows.items())])


def quality() -> str:
    """The table of the low-dose study: `medjax.dose` on the run of the row slices_lowdose."""
    found = json.loads(DOSE.read_text(encoding="utf-8"))
    lines = ["| method | PSNR dB | SSIM | d′ (95 %) | noise HU | bias in water, soft tissue, bone of the phantom HU | "
             "in soft tissue, bone of the images HU |", "|---" * 7 + "|"]
    for row in found["rows"]:
        bias = [[row[f"{prefix}{name}"] for name in names] for prefix, names in (
            ("bias_", ("water", "soft_tissue", "bone")), ("bias_images_", ("soft_tissue", "bone")))]
        water, images = (", ".join(f"{value:.1f}".replace("-", "−") for value in values) for values in bias)
        lines.append(f"| {row['method']} | {row['psnr']:.2f} | {row['ssim']:.3f} | {row['d_prime']:.2f} "
                     f"({row['d_prime_low']:.2f} … {row['d_prime_high']:.2f}) | {row['noise_hu']:.1f} | {water} | "
                     f"{images} |")
    return "\n".join(lines)


def intervals() -> str:
    """The table of the intervals of denoised brain slices (`benchmarks/intervals.py`)."""
    found = json.loads(INTERVALS.read_text(encoding="utf-8"))
    lines = ["| uncertainty | PSNR dB | coverage (95 %) | mean width | slope of error over std | errors grow with std | "
             "AUSE, random order |", "|---" * 7 + "|"]
    for name, row in found["kinds"].items():
        between = f"{100 * row['coverage_low']:.1f} … {100 * row['coverage_high']:.1f} %"
        spread = ["–"] * 3 if row["slope"] is None else [
            f"{row['slope']:.2f}", "in every bin" if row["monotone"] else "not in every bin",
            f"{row['ause']:.3f}, {row['ause_random']:.3f}"]
        lines.append(f"| {name} | {row['psnr']:.2f} | {100 * row['coverage']:.1f} % ({between}) | {row['width']:.4f} | "
                     f"{' | '.join(spread)} |")
    return "\n".join(lines)


def checked(name: str) -> dict[str, Any]:
    """What `benchmarks.checks` has measured, by row; nothing where it has not."""
    path, _ = CHECKED[name]
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else {}
    return found


def _between_bounds(numbers: Mapping[str, float | None], scale: float = 1.0, decimals: int = 2) -> str:
    """A mean with its interval."""
    mean, low, high = (None if numbers[key] is None else scale * numbers[key] for key in ("mean", "low", "high"))
    bounds = "" if low is None else f" ({low:.{decimals}f} … {high:.{decimals}f})"
    return f"{mean:.{decimals}f}{bounds}".replace("-", "−")


def planted(name: str) -> str:
    """The table of planted lesions of a row."""
    lines = ["| lesion | method | recovery (95 %) | lost % | invented % | d′ (95 %) |", "|---" * 6 + "|"]
    for found in checked(name).values():
        for kind in found["kinds"]:
            units = "" if kind["asked"].endswith("%") else f" {found['units']}"
            called = f"{kind['asked'].replace('%', ' %')}{units}, {kind['diameter_mm']:g} mm".replace("-", "−")
            for row, values in kind["methods"].items():
                seen = {key: kind["observer"][row][f"d_prime{end}"] for key, end in (("mean", ""), ("low", "_low"),
                                                                                    ("high", "_high"))}
                numbers = [_between_bounds(values["recovery"]), *(_between_bounds(values[key], 100, 0) for key in (
                    "lost", "invented")), "–" if seen["mean"] is None else _between_bounds(seen)]
                method = f"**{row}**" if row == "model" else row
                lines.append(f"| {called} | {method} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def agreement() -> str:
    """The table of residuals of reconstructions."""
    lines = ["| config | residual in parts of | method | mean (95 %) | largest |", "|---" * 5 + "|"]
    for row, found in checked("consistency").items():
        command = command_of(row).removeprefix("python train.py --config=configs/")
        for method, numbers in found["rows"].items():
            called = f"**{method}**" if method == "model" else method
            lines.append(f"| `{command}` | the {found['unit']} | {called} | {_between_bounds(numbers, decimals=3)} | "
                         f"{numbers['largest']:.3f} |")
    return "\n".join(lines)


def explained() -> str:
    """The table of explanations of a classifier."""
    keys = ("deletion", "insertion", "in_finding")
    lines = ["| map | deletion area (95 %) | insertion area (95 %) | in the finding, times chance (95 %) |",
             "|---" * 4 + "|"]
    for found in checked("explanations").values():
        lines += [f"| {name} | {' | '.join(_between_bounds(numbers[key]) for key in keys)} |"
                  for name, numbers in found["maps"].items()]
    return "\n".join(lines)


def first_run() -> str:
    """The table of the first run: every method with all metrics that have a decided number of digits."""
    found = json.loads((SCORES / "quickstart.json").read_text(encoding="utf-8"))
    metrics = [Metric(**found["metrics"][name]) for name in found["metrics"]]
    rows = found["rows"]
    cells = {metric.name: dict(zip(rows, texts(metric, [rows[row][metric.name] for row in rows]), strict=True))
             for metric in metrics}
    titles = {"input": "noisy input", "nlm": "non-local means", "tv": "total variation", "wavelet": "wavelets",
              "model": f"**U-Net, {found['step']} steps**"}
    order = ["input"]
    while (leader := best(rows, metrics[0], [row for row in rows if row not in (*order, "model")])) is not None:
        order.append(leader)
    lines = [f"| {found['samples']} test slices | {' | '.join(m.heading for m in metrics)} |",
             "|---" * (1 + len(metrics)) + "|"]
    for row in [*order, "model"]:
        numbers = [f"**{cells[m.name][row]}**" if row == "model" else cells[m.name][row] for m in metrics]
        lines.append(f"| {titles.get(row, row)} | {' | '.join(numbers)} |")
    return "\n".join(lines)


def summary(name: str) -> str:
    """A row as a line of its config's docstring."""
    found = _measured(name)
    if found is None:
        return f"    {name}: not measured yet\n"
    metric = Metric(**found["metrics"][found["metric"]])
    means = {row: values.get(metric.name) for row, values in found["rows"].items()}
    means |= {row: numbers["mean"] for row, numbers in found["standings"].items()}
    rows = {row: {metric.name: mean} for row, mean in means.items() if mean is not None}
    shown = dict(zip(rows, texts(metric, [values[metric.name] for values in rows.values()]), strict=True))
    leader = best(rows, metric, [row for row in rows if row not in ("model", "input")])
    beside = f", best reference {leader} {shown[leader]}" if leader else ""
    return (f"    {name}: {metric.heading} {shown['model']}{beside}; {_test_part(found)}, "
            f"{found['cpu_seconds'] / 60:.0f} CPU minutes\n")


def documented(text: str, module: str) -> str:
    """The text of a config with what was measured of it in its docstring."""
    lines = "".join(summary(name) for name, (spec, _) in ROWS.items() if spec.partition(":")[0] == module)
    block = re.compile(re.escape(MEASURED) + r"(?:\n(?:    .*\n)+)?")
    return block.sub(lambda _: f"{MEASURED}\n{lines}", text)


def pages() -> dict[Path, str]:
    """The files that say what was measured, as they should be."""
    page = PAGE.read_text(encoding="utf-8")
    for kind, rows in (("built-in", BUILT_IN), ("people", PEOPLE)):
        page = _between(page, kind, table(list(rows)))
    for name in MEASURED_DATA:
        page = _between(page, name, by_sample(name))
    found = {PAGE: page, QUALITY: _between(QUALITY.read_text(encoding="utf-8"), "dose", quality()),
             UNCERTAINTY: _between(UNCERTAINTY.read_text(encoding="utf-8"), "intervals", intervals()),
             EXPLAIN: _between(EXPLAIN.read_text(encoding="utf-8"), "explanations", explained()),
             PRIVACY: _between(PRIVACY.read_text(encoding="utf-8"), "membership", members()),
             DEIDENTIFY: _between(DEIDENTIFY.read_text(encoding="utf-8"), "deface", defaced()),
             README: _between(README.read_text(encoding="utf-8"), "quickstart", first_run())}
    found[LESIONS] = LESIONS.read_text(encoding="utf-8")
    for name, text in (("lesions_brains", planted("lesions_brains")), ("lesions_slices", planted("lesions_slices")),
                       ("consistency", agreement())):
        found[LESIONS] = _between(found[LESIONS], name, text)
    found[SPEED] = SPEED.read_text(encoding="utf-8")
    for make in (speed_tables.tiled, speed_tables.latency, speed_tables.seam, speed_tables.memory,
                 speed_tables.registration):
        found[SPEED] = _between(found[SPEED], make.__name__, make())
    for path in sorted((ROOT / "configs").glob("*.py")):
        found[path] = documented(path.read_text(encoding="utf-8"), path.stem)
    return found


def _between(page: str, mark: str, text: str) -> str:
    begin = page.index(BEGIN.format(mark)) + len(BEGIN.format(mark))
    return f"{page[:begin]}\n{text}\n{page[page.index(END, begin):]}"


def main(words: list[str]) -> None:
    names = [word for word in words[1:] if not word.startswith("--")]
    more = [word for word in words[1:] if word.startswith("--")]
    SCORES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        for name in [] if TABLES.value else names or BUILT_IN:
            row = measure(name, Path(RUNS.value or scratch), more, DATA.value)
            write_atomically(SCORES / f"{name}.json", json.dumps(row, indent=1) + "\n")
    for path, text in pages().items():
        write_atomically(path, text)
    print(f"written: {PAGE}, README.md and the docstrings of configs")


if __name__ == "__main__":
    app.run(main, flags_parser=lambda argv: flags.FLAGS(argv, known_only=True))
