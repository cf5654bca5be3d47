"""The way of a batch onto the devices."""

from functools import partial
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from medjax.data.pipeline import eval_batches, train_stream
from medjax.data.prefetch import to_device
from medjax.types import UserError
from tests.records import equal, numbered, regions_of


def place(batch: dict) -> dict:
    rows = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
    return {name: jax.device_put(array, rows) for name, array in batch.items()}


def test_batches_reach_all_devices_and_the_state_is_that_of_what_was_taken(mapped_regions):
    make = partial(train_stream, mapped_regions, batch_size=8, patch=(4, 4), seed=2)
    stream = make()
    expected = [next(stream) for _ in range(6)]
    stream.close()
    batches = to_device(make(), place, depth=3)
    for host in expected[:3]:
        batch = next(batches)
        assert len(batch["image"].sharding.device_set) == 8
        assert equal({k: np.asarray(v) for k, v in batch.items()}, host)
    state = batches.get_state()
    assert state["batches"] == 3
    assert batches.waited > 0
    next(batches)
    batches.set_state(state)
    assert equal({k: np.asarray(v) for k, v in next(batches).items()}, expected[3])
    batches.close()
    again = to_device(make(), place)
    again.set_state(state)
    assert equal({k: np.asarray(v) for k, v in next(again).items()}, expected[3])
    again.close()


def test_a_finite_iterable_ends_and_names_stay_on_the_host():
    batches = to_device(eval_batches(regions_of(numbered((10, 4, 4))), batch_size=8), place)
    names = [name for batch in batches for name in batch["name"]]
    assert len(names) == 16
    assert list(batches) == []
    batches.close()


def test_what_fails_behind_is_raised_in_front():
    def broken():
        yield {"image": np.zeros((8, 2, 2, 1))}
        raise UserError("file", "is broken")

    batches = to_device(broken(), place)
    next(batches)
    with pytest.raises(UserError, match="is broken"):
        next(batches)
    batches.close()


def test_reading_ahead_stops_when_asked():
    taken = SimpleNamespace(count=0)

    def endless():
        while True:
            taken.count += 1
            yield {"image": np.zeros((8, 2, 2, 1))}

    batches = to_device(endless(), place, depth=2)
    next(batches)
    batches.close()
    count = taken.count
    assert count <= 6
    assert batches._thread is None
