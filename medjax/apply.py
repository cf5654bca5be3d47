"""Applies a trained run to files: python -m medjax.apply --workdir=runs/mine --input=SERIES --output=DENOISED"""

import shutil
from pathlib import Path

from absl import flags
from tqdm import tqdm

from medjax import cli
from medjax.data.io import Study, discover
from medjax.data.write import write
from medjax.infer.predict import make_enhance
from medjax.train.loop import restore_best
from medjax.types import UserError

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the trained run.")
INPUT = flags.DEFINE_string("input", None, "A file, a DICOM series in a folder, or a folder of images.")
OUTPUT = flags.DEFINE_string("output", None, "Where the result goes: a file for a file, a folder for a folder.")
flags.mark_flags_as_required(["workdir", "input", "output"])


def main() -> None:
    source, target = Path(INPUT.value), Path(OUTPUT.value)
    studies = discover(source)
    if target.exists():
        raise UserError(target, "is there already; name a new file or folder")
    kind = "".join(studies[0].place.suffixes[-2:])
    if source.is_file() and studies[0].format != "dicom" and not target.name.endswith(kind):
        raise UserError(target, f"the format is kept; give a name that ends in {kind}")
    run, state = restore_best(Path(WORKDIR.value))
    enhance = make_enhance(run, state)
    partial = target.with_name("partial-" + target.name)  # all of the result appears at once, or nothing
    try:
        for study in tqdm(studies, desc="apply", unit="study", dynamic_ncols=True):
            write(_place(study, studies, source, partial), [enhance(record) for record in study.read()], study)
        partial.rename(target)
    finally:
        _remove(partial)
    print(f"{len(studies)} written: {target}")


def _place(study: Study, studies: list[Study], source: Path, target: Path) -> Path:
    """The target itself for a single study, the same place below it otherwise."""
    alone = source.is_file() or (len(studies) == 1 and study.place == Path("."))
    return target if alone else target / study.place


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    cli.run(main)
