"""Makes a run of weights that others trained, and gives a run's weights back under the names of the original's code.

    python -m medjax.convert --from=fastmri_unet --weights=unet.pt --workdir=runs/fastmri
    python -m medjax.convert --workdir=runs/fastmri --to=unet.safetensors

The run is used like any other: `python -m medjax.apply`, `eval.py`, and training that starts from it
(`--config.init_workdir=runs/fastmri`). A family is a file in `medjax/weights`; it says which config the run has, and
`--config=…`, `--config.KEY=…` as `train.py` takes them say otherwise. Widths, depths and channels follow from the file.
"""

import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from medjax import cli, registry
from medjax.train.converted import Converted, give_back, take_over
from medjax.types import UserError
from medjax.weights import _files as files
from medjax.weights._table import find

FROM = flags.DEFINE_string("from", "", "The family of the weights: a file in medjax/weights.")
flags.DEFINE_alias("family", "from")
WEIGHTS = flags.DEFINE_string("weights", "", f"The file of the weights: {', '.join(files.READ)}.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.", required=True)
TO = flags.DEFINE_string("to", "", f"Write the run's weights to this file: {', '.join(files.WRITTEN)}.")
CONFIG = config_flags.DEFINE_config_file("config", help_string="The run's config; the family's by default.")


def main() -> None:
    """Converts in the direction that the flags name."""
    if bool(TO.value) == bool(WEIGHTS.value):
        raise UserError("medjax.convert", "give --weights=FILE to make a run of them, or --to=FILE to write a run's weights")
    workdir = Path(WORKDIR.value)
    if TO.value:
        family = give_back(workdir, Path(TO.value).expanduser(), FROM.value)
        print(f"weights of {workdir} under the names of {family.TITLE}")
        print(f"written: {TO.value}")
        return
    find(FROM.value)  # said before the config that it would have
    found = take_over(FROM.value, Path(WEIGHTS.value).expanduser(), workdir, CONFIG.value,
                      config_flags.get_override_values(flags.FLAGS["config"]))
    print("\n".join(f"{name:8s} {text}" for name, text in _rows(found).items()))
    print(f"written: {workdir}")
    print(f"next: python -m medjax.apply --workdir={workdir} --input=FILE_OR_FOLDER --output=RESULT")


def _rows(found: Converted) -> dict[str, str]:
    """What was converted, in words."""
    data, model = found.config.data, found.config.model
    keys = [key.removeprefix("model.") for key in found.settings if key.startswith("model.")]
    return {"weights": f"{found.family.TITLE}, {found.parameters:,} parameters, from {WEIGHTS.value}",
            "network": f"{model.name}: " + ", ".join(f"{key}={_short(model[key])}" for key in keys),
            "task": f"{found.config.task.name}, {data.channels} channel{'s' if data.channels > 1 else ''} in "
                    f"{data.range[0]:g} … {data.range[1]:g}",
            "images": found.family.PREPARATION}


def _short(value: object) -> str:
    """A value in words; many times the same once."""
    if isinstance(value, tuple | list) and len(value) > 4 and len(set(value)) == 1:
        return f"{len(value)} x {value[0]}"
    return str(value)


def _with_config(argv: list[str]) -> list[str]:
    """The arguments with the family's `--config`, where they have none: absl needs it before the keys that change it."""
    named = [arg.partition("=")[2] for arg in argv if arg.startswith(("--from=", "--family="))]
    said = any(arg.startswith(("--config=", "--to=")) for arg in argv)
    if said or not named or named[-1] not in registry.modules("weights"):
        return argv
    return [argv[0], f"--config={find(named[-1]).CONFIG}", *argv[1:]]


if __name__ == "__main__":
    sys.argv = _with_config(sys.argv)
    cli.run(main)
