"""What every method makes of given images: the run's network, its references at their strengths, the input."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from medjax.evaluation.references import measured, together
from medjax.tasks._restoration import Restoration
from medjax.train.evaluator import Evaluator
from medjax.train.run import Run
from medjax.types import Array, Record, Reference, Region, State, Value


@dataclass(frozen=True)
class Restored:
    """One image: its record, images `(*space)` in physical units by method, the truth, the task's metrics by method.

    Images are as the task compares them, the means over their channels, on the grid of the record.
    """

    record: Record
    images: dict[str, np.ndarray]
    truth: np.ndarray
    metrics: dict[str, dict[str, Value]]


@dataclass(frozen=True)
class Methods:
    """A run's network with its `state`, and `references` at their `strengths`."""

    run: Run
    state: State
    evaluator: Evaluator
    references: Mapping[str, Reference]
    strengths: Mapping[str, float]

    def restored(self, records: Sequence[Record],
                 advance: Callable[[int], object] = lambda count: None) -> Iterator[Restored]:
        """What they make of each record, degraded as in an evaluation; noise follows from the record's id."""
        measure, batches = measured(self.run), self.evaluator.batches([Region.whole(record) for record in records])
        known = iter(records)
        for batch in self.evaluator(self.state, batches):
            example, pred = batch.example, batch.prediction
            assert example is not None
            assert pred is not None

            def run_one(name: str, example=example) -> Array:  # type: ignore[no-untyped-def]
                return jax.device_get(self.references[name].run(example, self.strengths[name]))

            made = dict(zip(self.references, together(run_one, self.references), strict=True))
            scores = {name: measure(image, example) for name, image in made.items()}
            made["model"], scores["model"] = pred.image, batch.metrics
            for i in range(len(batch.names)):
                record = next(known)
                yield Restored(record, {row: self._own_grid(image[i], record, batches.shape) for row, image in made.items()},
                               self._own_grid(example.target[i], record, batches.shape),
                               {row: found[i] for row, found in scores.items()})
            advance(len(batch.names))

    def _own_grid(self, image: np.ndarray | Array, record: Record, batch: Sequence[int]) -> np.ndarray:
        """An image `(*space, C)` in unit range in physical units, without the padding that lies around it to both sides.

        What a task has cut off at its end is its edge.
        """
        task = self.run.task
        assert isinstance(task, Restoration)
        low, high = task.data_range
        grey = np.asarray(task.compared(jnp.asarray(image)[None]), np.float32)[0].mean(-1) * (high - low) + low
        grey = np.pad(grey, [(0, max(0, size - n)) for size, n in zip(batch, grey.shape, strict=True)], mode="edge")
        own = record.image.shape[:-1]
        start = [(padded - n) // 2 for padded, n in zip(batch, own, strict=True)]
        return grey[tuple(slice(s, s + n) for s, n in zip(start, own, strict=True))]
