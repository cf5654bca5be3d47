"""What tasks, objectives, models, sources, file formats and outputs must offer, and what they may."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np

from medjax.types.arrays import (
    Array,
    Batch,
    Example,
    Key,
    Mean,
    Measurement,
    NetworkInput,
    Operator,
    Params,
    Prediction,
    Variables,
)
from medjax.types.records import Derivation, Record, Splits

Value: TypeAlias = float | list["Value"]
"""Of a metric: a number, or a table of them as nested lists."""


@dataclass(frozen=True)
class Metric:
    """One number by which results are compared: what it is called, its unit, and which way is better.

    `unit` may hold "{units}" (what the images are in, as HU) and "{length}" (mm, or pixels where no voxel size is known).
    `decimals` None prints as many as the smallest value needs. A `pooled` metric is of all samples of a patient together, as
    the task's `summarise` has it; others are means over samples.
    """

    name: str
    label: str = ""
    unit: str = ""
    lower_is_better: bool = False
    decimals: int | None = None
    pooled: bool = False

    @property
    def title(self) -> str:
        """What tables call it."""
        return self.label or self.name.replace("_", " ")

    @property
    def heading(self) -> str:
        """Its title with the unit."""
        return f"{self.title} {self.unit}".rstrip()

    def better(self, value: float, other: float) -> bool:
        """Whether `value` is better than `other`."""
        return value < other if self.lower_is_better else value > other


Draw: TypeAlias = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]
"""Random values of a shape."""


@dataclass(frozen=True)
class Port:
    """An array that goes into an exported run or comes out of it, float32 `(B, *shape)`, and what it means.

    `shape` has whole numbers, and text for sizes that are free ("16*h" for multiples of 16). `channels` names those of the
    last axis where they have names. `example` draws values like those it gets in use. `as_input`: an output whose values are
    in the units of the input's file, where those are normalised.
    """

    name: str
    shape: tuple[int | str, ...]
    meaning: str
    unit: str = ""
    channels: tuple[str, ...] = ()
    example: "Draw | None" = None
    as_input: bool = False


@dataclass(frozen=True)
class Reference:
    """A method without training that networks are compared with.

    `run(example, strength)` gives a prediction's image for every sample of an example. `strengths` is the grid, in
    increasing order, from which the strength is chosen on validation data; () where a method has none to choose.
    """

    run: "ReferenceMethod"
    strengths: tuple[float, ...] = ()


class ReferenceMethod(Protocol):
    """What a `Reference` runs."""

    def __call__(self, example: Example, strength: float, /) -> Array:
        """`(B, *space, C)` as the task's networks would predict it."""


@runtime_checkable
class Format(Protocol):
    """A file format: a module of `medjax/data/formats`, found there by its file alone.

    `SUFFIXES` are lower case with their dot (".nii.gz"; "" where files may have none), `KIND` what its records hold:
    "image", "kspace" or "sinogram".
    """

    SUFFIXES: tuple[str, ...]
    KIND: str

    def accepts(self, path: Path) -> bool:
        """Whether a file with one of the suffixes is of this format; looks inside where several formats share one."""

    def group(self, files: Sequence[Path]) -> list[tuple[tuple[Path, ...], str]]:
        """The files that make one study each, and whose it is ("" where no file says so). Raises UserError."""

    def read(self, paths: Sequence[Path], name: str, subject: str) -> list[Record]:
        """The records of a study: one, or one per frame. Raises UserError that names the file."""


@runtime_checkable
class SeriesFormat(Format, Protocol):
    """A format whose files say which series they are of, so that one can be chosen."""

    def group_series(self, files: Sequence[Path], series: str = "") -> list[tuple[tuple[Path, ...], str, str]]:
        """As `group`, with the name of each study's series ("" where it has none).

        `series` leaves those alone that have it in their name, or as their number; none where no file has. Raises UserError.
        """


@runtime_checkable
class WritableFormat(Format, Protocol):
    """A format that results are written in, with the header, grid and units of the study they were made from."""

    def write(self, target: Path, images: Sequence[np.ndarray], paths: Sequence[Path],
              derivation: Derivation) -> None:
        """`images` `(*space, C)` in physical units, one per record that `read(paths)` gives, with the source's dtype.

        Images of another size keep the field of view. The header says what made them where it has a place for that.
        Raises UserError.
        """

    def write_labels(self, target: Path, labels: Sequence[np.ndarray], names: Sequence[str], paths: Sequence[Path],
                     derivation: Derivation) -> None:
        """Label maps `(*space)` uint8, one per record, on the source's grid; `names` of the classes, background first."""


class Destination(Protocol):
    """Where the outputs of one study go: files named after it, and a row of the table of all studies."""

    def write_images(self, name: str, images: Sequence[np.ndarray], difference: str = "") -> None:
        """Images `(*space, C)` in physical units, one per record, in the study's own format.

        `name` is added to the study's, "" for the main output. Where they are differences of values, as the half-widths of
        intervals, `difference` says of what kind. Raises UserError.
        """

    def write_labels(self, name: str, labels: Sequence[np.ndarray], names: Sequence[str]) -> None:
        """Label maps `(*space)` uint8, one per record, in the study's own format, with the classes' names."""

    def file(self, name: str, suffix: str) -> Path:
        """Where a file of any other kind goes."""

    def in_source_units(self, image: np.ndarray, record: Record, difference: bool = False) -> np.ndarray:
        """An image, or a `difference` of values, in the task's physical units in those of the record's source, where that
        was rescaled.
        """

    def add_row(self, values: Mapping[str, str | float]) -> None:
        """Adds columns to the study's row of the table."""


class Output(Protocol):
    """One thing that `apply` writes for a study: an image, a label map, a row of a table, a displacement field, …"""

    def write(self, destination: Destination) -> None:
        """Writes it. Raises UserError."""


class Task(Protocol):
    """What is asked of a network: from records to inputs, targets, losses, metrics and files. A frozen dataclass.

    Its fields with a default are the keys of `config.task`.

    """

    @property
    def data_range(self) -> tuple[float, float]:
        """(low, high) in physical units, which goes to unit range 0 … 1."""

    @property
    def ndim(self) -> int:
        """The number of spatial axes of the images."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the images that make one input: ("image",), the contrasts, ("moving", "fixed"), …"""

    @property
    def kind(self) -> str:
        """What files hold that it is applied to: "image", "kspace" or "sinogram"."""

    @property
    def tileable(self) -> bool:
        """Whether an image may go through in overlapping tiles: each voxel of the result depends on its surroundings."""

    @property
    def keeps_format(self) -> bool:
        """Whether its main output has the format of the file that was read."""

    @property
    def scale(self) -> tuple[int, ...]:
        """How many target voxels there are for an input voxel, per spatial axis."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What `measure` and `summarise` give, in the order of tables."""

    @property
    def input_ndim(self) -> int:
        """The number of spatial axes of what `input` takes: `ndim`, unless projections are taken for volumes."""

    def out_channels(self, channels: int) -> int:
        """How many channels the network makes of images with `channels`."""

    def resolve_from_data(self, splits: Splits) -> dict[str, object]:
        """Config values of the task that follow from the data. Raises UserError where the data doesn't fit the task."""

    def input(self, batch: Batch) -> NetworkInput:
        """What a network sees of measured data; no truth is needed. Raises UserError where the task can't be applied."""

    def example(self, key: Key, batch: Batch) -> Example:
        """A training example: the batch's images degraded, then the same `input`."""

    def evaluation_example(self, key: Key, batch: Batch) -> Example:
        """The example that methods are evaluated on, where that is another than what is learned from."""

    def losses(self, pred: Array, example: Example) -> dict[str, Mean]:
        """Every loss that `config.objective.loss` may name."""

    def measure(self, pred: Prediction, example: Example) -> dict[str, Array]:
        """Per sample, `(B, ...)`; `summarise` makes the metrics of them."""

    def summarise(self, samples: Sequence[Mapping[str, Value]]) -> dict[str, Value]:
        """A data set's metrics from what `measure` gave for its samples; what is no number is a table, shown apart."""

    def references(self) -> dict[str, Reference]:
        """Methods without training, by name; "input" is the input as it is, where that can be compared."""

    def render(self, example: Example, predictions: Mapping[str, Prediction]) -> dict[str, np.ndarray]:
        """One sample's predictions by row, and the truth, as images `(*space, C)` to look at, in physical units.

        The example and the predictions are without the batch's axis.
        """

    def arrange(self, records: Sequence[Record]) -> list[Record]:
        """The records of a study as the task takes them. Raises UserError for what it can't be applied to."""

    def operators(self, record: Record) -> Operator | None:
        """The operator that made a measured record, where the record says so; it is static to compiled programs."""

    def outputs(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> list[Output]:
        """What `apply` writes for a study: its records with the whole of each one's prediction, without a batch axis.

        The arrays of the predictions may be changed.
        """

    def exported_inputs(self, channels: int, size: Sequence[int | str]) -> tuple[Port, ...]:
        """The arrays that `input` reads, for images of `channels` and `size`, whole numbers or text as a port has them.

        Raises UserError where an exported run could not be applied, or needs the size in whole numbers.
        """

    def exported_output(self, channels: int) -> Port:
        """What `exported` gives; its shape is left to the program."""

    def exported(self, pred: Prediction, batch: Batch) -> Array:
        """What an exported run makes of a prediction, in physical units: what `outputs` writes of it, as an array."""

    def on_target_grid(self, image: Array) -> Array:
        """The input image on the grid of the target: what conditional critics and readers compare with."""


@runtime_checkable
class DividesMeasurement(Protocol):
    """A task whose measurement can be divided, so that a network learns from one share to predict the rest."""

    def draw_share(self, key: Key, measurement: Measurement, share: float) -> Array:
        """Which share of a measurement a network may see: 1 or 0, broadcastable to `y`."""

    def restricted(self, example: Example, keep: Array) -> Example:
        """The example as if only what `keep` marks had been measured."""


@runtime_checkable
class CoarsensTargets(Protocol):
    """A task whose losses compare voxel by voxel, so that they fit a coarser grid: outputs of coarser levels learn, too."""

    def on_coarser_grid(self, example: Example, factors: Sequence[int]) -> Example:
        """The example on a grid that is `factors` times coarser, its sizes rounded up; what is padded does not count."""


@runtime_checkable
class TranslatesContrasts(Protocol):
    """A task from some contrasts of a subject to another one."""

    source: tuple[str, ...]
    target: str


class Model(Protocol):
    """A network: a Flax module whose fields with a default are the keys of its config.

    `ndim`, `channels` (of its output) and `scale` are supplied. It is called as `model(image, context, train)`; what it
    sows into "losses", `(B,)` for each sample, can be named in `config.objective.loss`. In training it may sow its
    outputs of coarser levels into "coarse" as "outputs": a tuple of `CoarseOutput`, from the finest to the coarsest.
    """

    def init(self, rngs: Key | Mapping[str, Key], *args: Any, **kwargs: Any) -> Variables:
        """Initial variables: "params" and other collections."""

    def apply(self, variables: Variables, *args: Any, **kwargs: Any) -> Any:
        """The network's output; with `mutable`, also the changed collections."""


class Objective(Protocol):
    """How networks learn a task: one or several players, their losses, and the prediction. A frozen dataclass.

    Its fields with a default are the keys of `config.objective`.
    """

    networks: ClassVar[Mapping[str, str]]
    """The networks it trains and the model each has by default; every name is a key of the config (`config.critic`)."""

    @property
    def players(self) -> tuple[str, ...]:
        """Who is updated in a step, in turn; a player may come several times."""

    @property
    def predictors(self) -> tuple[str, ...]:
        """The players whose weights are used, and so averaged."""

    @property
    def batches(self) -> int:
        """Into how many a step's batch is divided: 1, or one for each update, so that each has samples of its own."""

    def init(self, key: Key, example: Example) -> tuple[dict[str, Params], dict[str, Variables]]:
        """Parameters and other variables of every player."""

    def losses(self, params: dict[str, Params], player: str, variables: dict[str, Variables], example: Example,
               key: Key) -> tuple[dict[str, Mean], dict[str, Variables]]:
        """The terms of the player's loss, which is the sum of their values; the variables after this pass."""

    def predict(self, params: dict[str, Params], variables: dict[str, Variables], given: NetworkInput,
                keys: Key) -> Prediction:
        """The prediction in use; `keys` `(B,)` derive from the samples' ids."""


class Source(Protocol):
    """Where records come from. A frozen dataclass; its fields are the keys of `config.data.source`."""

    def load(self) -> list[Record]:
        """The records. Raises UserError."""
