"""What a run is applied to: one study for each input, or the studies of several contrasts that belong together."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from medjax.data.io import Study, discover
from medjax.data.normalise import normalised
from medjax.data.sources.multicontrast import TOP, UNITS, unit
from medjax.infer.fit import fitted
from medjax.train.run import Config, Run
from medjax.types import Record, Task, Units, UserError


@dataclass(frozen=True)
class Inputs:
    """The studies that make one input of a task, by name; the first gives the result its header, grid and place."""

    studies: Mapping[str, Study]

    @property
    def main(self) -> Study:
        """The first."""
        return next(iter(self.studies.values()))


def parse(texts: Sequence[str], task: Task) -> dict[str, Path]:
    """The flags `--input=PATH` or `--input=NAME:PATH` by the names of the task's inputs. Raises UserError."""
    found: dict[str, Path] = {}
    for text in texts:
        name, colon, path = text.partition(":")
        if not colon or name not in task.inputs:
            if len(task.inputs) > 1:
                raise UserError("--input", f"{text!r}; the model takes {', '.join(task.inputs)}: give --input=NAME:PATH for "
                                "each, and --missing=NAME for contrasts that there are not")
            name, path = task.inputs[0], text
        if name in found:
            raise UserError("--input", f"{name} is given twice; give each input once")
        found[name] = Path(path).expanduser()
    return found


def gather(paths: Mapping[str, Path], task: Task, missing: Collection[str], series: str = "") -> list[Inputs]:
    """The studies below the paths, of one `series` where it is given, put together by their places.

    Raises UserError for what is neither given nor missing.
    """
    unknown = set(missing) - set(task.inputs)
    if unknown:
        raise UserError("--missing", f"unknown {', '.join(sorted(unknown))}; choose from {', '.join(task.inputs)}")
    lacking = [name for name in task.inputs if name not in paths and name not in missing]
    if lacking:
        raise UserError("--input", f"nothing is given for {', '.join(lacking)}; give --input={lacking[0]}:PATH, or say that "
                        f"there is none: --missing={','.join(lacking)}")
    if not paths:
        raise UserError("--input", "every input is missing; give at least one")
    names = [name for name in task.inputs if name in paths]
    studies = {name: discover(paths[name], kind=task.kind, series=series) for name in names}
    if len(names) == 1 or all(len(found) == 1 for found in studies.values()):
        return [Inputs(dict(zip(names, group, strict=True))) for group in zip(*(studies[n] for n in names), strict=True)]
    places = {name: {study.place: study for study in found} for name, found in studies.items()}
    first = names[0]
    for name in names[1:]:
        differing = sorted(set(places[first]) ^ set(places[name]))
        if differing:
            raise UserError(paths[name], f"{differing[0]} is in one of {first} and {name} only; give folders whose files "
                            "have the same names")
    return [Inputs({name: places[name][place] for name in names}) for place in places[first]]


def read(inputs: Inputs, config: Config, task: Task) -> list[Record]:
    """The records of an input: of several contrasts, one record with a channel for each. Raises UserError."""
    if tuple(task.inputs) == ("image",):
        return inputs.main.read()
    records = {name: study.read() for name, study in inputs.studies.items()}
    counts = {len(found) for found in records.values()}
    if len(counts) > 1:
        raise UserError(inputs.main.paths[0], "the inputs have different numbers of frames; give volumes of one kind")
    return [_together({name: records[name][i] for name in records}, config, task) for i in range(counts.pop())]


def prepared(run: Run, inputs: Inputs, rescale: str = "none",
             accept: Collection[str] = ()) -> tuple[list[Record], dict[str, Units]]:
    """The records of an input as the run takes them, and the way back to the units of each, by its id.

    `rescale` and `accept` are as `medjax.infer.fit` has them. Raises UserError for records that don't fit the run, or have a
    scale each that the task would mix.
    """
    config, how = run.config, run.config.data.normalise
    records: list[Record] = []
    to_source: dict[str, Units] = {}
    found = read(inputs, config, run.task)
    arranged = run.task.arrange(found)
    if how != "none" and [record.id for record in arranged] != [record.id for record in found]:
        raise UserError("config.data.normalise", f"{how}, but {config.task.name} divides a study otherwise than its files "
                        "do, so results can't go back to their units; train with none")
    for record in arranged:
        normal, to_units = normalised(record, how)
        fitting, back = fitted(config, normal, rescale, accept)
        records.append(fitting)
        to_source[record.id] = partial(_back, to_units, back)
    return records, to_source


def _back(to_units: Units, to_values: Units, image: np.ndarray) -> np.ndarray:
    """An image in the run's units in those of its file."""
    return to_units(to_values(image))


def _together(records: Mapping[str, Record], config: Config, task: Task) -> Record:
    first = next(iter(records.values()))
    for name, record in records.items():
        same = record.affine is None or first.affine is None or np.allclose(record.affine, first.affine, atol=1e-3)
        if record.image.shape[:-1] != first.image.shape[:-1] or not same:
            raise UserError(record.id, f"{name} is not on the grid of {next(iter(records))} ({record.image.shape[:-1]} and "
                            f"{first.image.shape[:-1]}, or another affine); python -m medjax.align brings it there")
    if task.inputs[0] == "image":
        fields = {name: (np.asarray(record.image) != 0).astype(np.uint8)[..., :1] for name, record in records.items()
                  if name != "image"}
        return replace(records["image"], extras={**records["image"].extras, **fields})
    channels = list(_channels(records, config, task))
    return replace(first, image=np.concatenate(channels, -1), slope=1.0, intercept=0.0, units=config.data.domain.units,
                   contrasts=tuple(task.inputs), extras={k: v for k, v in first.extras.items() if k == "mask"})


def _channels(records: Mapping[str, Record], config: Config, task: Task) -> Iterator[np.ndarray]:
    """Each contrast in the run's units; a missing one is the low end of the range."""
    shape = (*next(iter(records.values())).image.shape[:-1], 1)
    for name in task.inputs:
        if name not in records:
            yield np.full(shape, config.data.range[0], np.float32)
        elif config.data.domain.units == UNITS:
            yield unit(records[name].image[..., :1]).astype(np.float32) / TOP
        else:
            yield records[name].in_units((..., slice(0, 1)))
