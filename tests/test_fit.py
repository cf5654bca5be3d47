"""Scans that differ from those of training are refused with what differs; what is accepted or rescaled goes through."""

import ml_collections
import numpy as np
import pytest

from medjax.infer.fit import fitted
from medjax.types import Record, UserError

DOMAIN = {"modality": "CT", "units": "HU", "percentiles": (-1000.0, 1000.0), "spacing_mm": (0.5, 1.0), "contrasts": ()}
CONFIG = ml_collections.ConfigDict({"data": {"range": (-1000.0, 1000.0), "domain": DOMAIN}})


def scan(**changes) -> Record:
    image = np.linspace(-1000, 1000, 64, dtype=np.float32).reshape(8, 8, 1)
    usual = {"image": image, "id": "a", "subject": "a", "modality": "CT", "units": "HU", "spacing_mm": (0.8, 0.8)}
    return Record(**usual | changes)


def test_a_scan_like_those_of_training_is_taken_as_it_is():
    record = scan()
    assert fitted(CONFIG, record)[0] is record


@pytest.mark.parametrize(("changes", "said", "name"), [
    ({"modality": "MR"}, "a: its modality is MR, and the model was trained on CT; use another model, or", "modality"),
    ({"units": "1"}, "a: its units is 1, and the model was trained on HU", "units"),
    ({"spacing_mm": (3.0, 3.0)}, "a: its voxels are 3 x 3 mm, and the model was trained on 0.5 x 1 mm; resample", "spacing"),
    ({"slope": 4.0}, "a: its values are -3992 … 3611, and the model was trained on -1000 … 1000; map", "values"),
    ({"slope": 0.01, "intercept": -990.0}, "a: its values are -1000 … -981", "values"),
])
def test_what_differs_is_said_and_can_be_accepted(changes, said, name):
    record = scan(**changes)
    with pytest.raises(UserError, match=said):
        fitted(CONFIG, record)
    assert fitted(CONFIG, record, accept=[name])[0] is record


@pytest.mark.parametrize("rescale", ["percentile", "range"])
def test_rescaled_values_lie_where_those_of_training_do_and_go_back(rescale):
    record = scan(slope=4.0, intercept=7.0)
    made, back = fitted(CONFIG, record, rescale)
    np.testing.assert_allclose([made.in_units().min(), made.in_units().max()], [-1000, 1000], atol=5)
    np.testing.assert_allclose(back(made.in_units()), record.in_units(), atol=1e-2)
