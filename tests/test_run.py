"""Which config the folder of a run takes."""

import json

import pytest

from configs import quickstart
from medjax.train.run import CONFIG, write_config
from medjax.types import UserError


def test_a_run_goes_on_with_keys_that_have_come_since_at_their_defaults(tmp_path):
    config = quickstart.get_config()
    write_config(tmp_path, config)
    saved = json.loads((tmp_path / CONFIG).read_text(encoding="utf-8"))
    del saved["model"]["bias"], saved["task"]["noise"]
    (tmp_path / CONFIG).write_text(json.dumps(saved), encoding="utf-8")
    write_config(tmp_path, config)
    (tmp_path / CONFIG).write_text(json.dumps(saved), encoding="utf-8")
    config.model.bias = True
    with pytest.raises(UserError, match=r"holds a run with model\.bias=False"):
        write_config(tmp_path, config)


def test_another_value_is_refused_with_its_key(tmp_path):
    config = quickstart.get_config()
    write_config(tmp_path, config)
    config.steps, config.optim.lr = 5, 0.5
    with pytest.raises(UserError, match=r"holds a run with optim\.lr=0\.002; give those values"):
        write_config(tmp_path, config)
