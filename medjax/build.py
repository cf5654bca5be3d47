"""Prepares a data set for training at scale, as ArrayRecord shards that TFDS and medjax read.

    python -m medjax.build files --from=FOLDER --to=FOLDER --patch=64,64,64 --processes=8
    python -m medjax.build phantoms --to=FOLDER --options='kind=brain;shape=64,128,128;count=100'
    python -m medjax.build files --to=FOLDER --verify

The first word is a builder, `datasets/<name>.py`, or a file that has one. A build that was killed is resumed when the same
command comes again.
"""

import ast
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags

from medjax import cli
from medjax.data.storage import builder as builders
from medjax.data.storage import shard_writer
from medjax.data.storage.catalogue import file_of
from medjax.types import UserError

FROM = flags.DEFINE_string("from", "", "The file or folder that the builder reads.")
TO = flags.DEFINE_string("to", None, "The folder that data sets are kept in; this one goes to <name>/<version> below it.",
                         required=True)
PATCH = flags.DEFINE_list("patch", [], "Cut training images into blocks of this size, as 64,64,64; 0: the whole axis.")
OVERLAP = flags.DEFINE_integer("overlap", 0, "Voxels that neighbouring blocks have in common.", lower_bound=0)
DTYPE = flags.DEFINE_enum("dtype", "", ["", "uint8", "int16", "uint16", "int32", "float32"],
                          "What images are stored as; the first image's if empty.")
FRACTIONS = flags.DEFINE_list("fractions", ["0.8", "0.1", "0.1"], "The fractions of the subjects for train, val and test.")
OPTIONS = flags.DEFINE_string("options", "", "The builder's own options: 'kind=brain;count=100'.")
PROCESSES = flags.DEFINE_integer("processes", len(os.sched_getaffinity(0)), "How many write side by side.", lower_bound=1)
ENGINE = flags.DEFINE_enum("engine", "processes", shard_writer.ENGINES, "beam: Apache Beam, for more than one machine.")
BEAM_OPTIONS = flags.DEFINE_string("beam_options", "", "Beam's own options: '--runner=FlinkRunner --flink_master=…'.")
VERIFY = flags.DEFINE_bool("verify", False, "Read every file of a set that is there and compare its checksum.")


def main() -> None:
    """Builds or verifies the data set that the command names."""
    name = sys.argv[1] if len(sys.argv) > 1 and not sys.argv[1].startswith("-") else ""
    cls = builders.builder_class(file_of("medjax.build", name, "builder", "(Builder)"))
    folder = Path(TO.value).expanduser() / cls.name / str(cls.VERSION)
    if VERIFY.value:
        noted = shard_writer.verify(folder)
    else:
        given: dict[str, Any] = {
            "source": FROM.value, "patch": _numbers("patch", int, PATCH.value), "overlap": OVERLAP.value,
            "dtype": DTYPE.value, "fractions": _numbers("fractions", float, FRACTIONS.value)}
        builder = cls(**given, **_options(cls, OPTIONS.value))
        try:
            noted = shard_writer.build(builder, folder, PROCESSES.value, ENGINE.value, BEAM_OPTIONS.value)
        except KeyboardInterrupt:
            raise UserError(folder, "stopped; run the same command to resume") from None
    print("\n".join(_table(noted)))
    print(f"{'verified' if VERIFY.value else 'written'}: {folder}")
    classes = f' --config.task.classes="{tuple(noted["classes"])}"' if noted["classes"] else ""
    print(f"next: python train.py --config={noted['config']}{classes} --workdir=runs/{cls.name} --config.data.path={folder}")


def _numbers(flag: str, kind: type, texts: list[str]) -> tuple:
    try:
        return tuple(kind(text) for text in texts)
    except ValueError:
        raise UserError(f"--{flag}", f"{','.join(texts)}; give numbers with commas between") from None


def _options(cls: type[builders.Builder], text: str) -> dict[str, Any]:
    """'kind=brain;shape=64,64' as keyword arguments, each of its default's type."""
    defaults = builders.options(cls)
    found = {}
    for part in filter(None, text.split(";")):
        key, _, value = part.partition("=")
        if key not in defaults:
            raise UserError("--options", f"{cls.name} has no {key!r}; it has {', '.join(defaults) or 'none'}")
        found[key] = _like(key, value, defaults[key])
    return found


def _like(key: str, text: str, default: Any) -> Any:
    if isinstance(default, str):
        return text
    if isinstance(default, tuple):
        parts = tuple(filter(None, text.split(",")))
        return tuple(_like(key, part, default[0]) for part in parts) if default else parts
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = None
    if type(value) is not type(default):
        raise UserError("--options", f"{key}={text} is no {type(default).__name__}; the default is {default!r}")
    return value


def _table(noted: Mapping[str, Any]) -> list[str]:
    lines = [f"{'split':12s}{'subjects':>10s}{'examples':>10s}{'shards':>8s}{'MB':>10s}"]
    for name, row in noted["splits"].items():
        lines.append(f"{name:12s}{row['subjects']:10d}{row['examples']:10d}{row['shards']:8d}{row['bytes'] / 1e6:10.1f}")
    if noted["classes"]:
        lines.append("classes: " + ", ".join(noted["classes"]))
    return lines


if __name__ == "__main__":
    cli.run(main)
