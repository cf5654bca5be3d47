"""Names to objects: a new file, a package that extends medjax, and a mistyped config."""

import inspect
import sys

import jax.numpy as jnp
import numpy as np
import pytest

import medjax.models
from medjax import registry
from medjax.tasks.denoise import Denoise
from medjax.types import Example, NetworkInput, Prediction, Task, UserError


def test_names_are_the_files_that_hold_a_constructor():
    names = registry.names("models")
    assert {"cnn", "srcnn", "dncnn", "redcnn", "edsr", "unet", "patch", "dcgan"} <= set(names)
    assert "blocks" not in names
    assert names == sorted(names)
    assert {"denoise", "superres"} <= set(registry.names("tasks"))
    assert {"supervised", "adversarial"} <= set(registry.names("objectives"))


@pytest.mark.parametrize("layer", ["models", "tasks", "objectives"])
def test_every_spec_has_the_keys_of_its_constructor(layer):
    for name in registry.names(layer):
        parameters = inspect.signature(registry.find(layer, name)).parameters
        defaults = {k: p.default for k, p in parameters.items() if p.default is not p.empty and k not in ("parent", "name")}
        spec = registry.spec(layer, name).to_dict()
        assert spec.pop("name") == name
        assert spec == defaults


def test_spec_changes_values_and_build_gives_the_object():
    config = registry.spec("models", "unet", width=8, depth=2)
    unet = registry.build("models", config, ndim=3, channels=1, scale=(1, 1, 1), unheard_of=5)
    assert (unet.width, unet.depth, unet.ndim, unet.norm) == (8, 2, 3, "group")


def test_lists_from_json_become_hashable():
    config = registry.spec("models", "cnn")
    config.features, config.kernels = [4, 4], [3, 3, 3]
    cnn = registry.build("models", config, ndim=2, channels=1, scale=[1, 1])
    assert cnn.features == (4, 4)
    hash(cnn.features)


def test_a_presets_defaults_are_its_own():
    assert registry.spec("models", "srcnn").kernels == (9, 5, 5)
    assert registry.spec("models", "srcnn").norm == registry.spec("models", "cnn").norm


@pytest.mark.parametrize("name", ["unett", "", "unet.x", "__init__", "Unet "])
def test_an_unknown_name_lists_what_there_is(name):
    with pytest.raises(UserError, match=r"config\.model\.name: unknown .*; choose from .*unet") as error:
        registry.spec("models", name)
    assert "\n" not in str(error.value)


def test_an_unknown_key_lists_what_is_allowed():
    with pytest.raises(UserError, match=r"models\.unet\.widht: .*width.*depth") as error:
        registry.spec("models", "unet", widht=3)
    assert "\n" not in str(error.value)


def test_keys_of_another_model_are_caught_when_it_is_built():
    config = registry.spec("models", "unet")
    config.name = "redcnn"
    with pytest.raises(UserError, match=r"config\.model\..*redcnn has no such key; it has width, depth, kernel"):
        registry.build("models", config, ndim=2, channels=1, scale=(1, 1))


def test_an_argument_that_must_be_supplied_is_named_when_missing():
    with pytest.raises(UserError, match="channels"):
        registry.build("models", registry.spec("models", "unet"), ndim=2, scale=(1, 1))


def test_one_new_file_is_a_new_model(tmp_path, monkeypatch):
    (tmp_path / "my_net.py").write_text("class MyNet:\n    def __init__(self, ndim, width=3):\n        self.width = width\n")
    monkeypatch.setattr(medjax.models, "__path__", [*medjax.models.__path__, str(tmp_path)])
    assert "my_net" in registry.names("models")
    assert registry.build("models", registry.spec("models", "my_net", width=7), ndim=2).width == 7


@pytest.fixture
def extension(tmp_path, monkeypatch):
    """The folder of an installed package that extends medjax by the entry point group "medjax"."""
    folder, installed = tmp_path / "extension_of_medjax", tmp_path / "extension_of_medjax-1.0.dist-info"
    for made in (folder, folder / "models", installed):
        made.mkdir()
        (made / "__init__.py").touch()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: extension-of-medjax\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[medjax]\nextension = extension_of_medjax\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry.packages.cache_clear()
    yield folder
    registry.packages.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "extension_of_medjax"]:
        del sys.modules[name]


def test_an_installed_package_adds_its_own_models_and_metrics(extension):
    (extension / "models" / "their_net.py").write_text("class TheirNet:\n    def __init__(self, width=3):\n"
                                                       "        self.width = width\n")
    (extension / "measures").mkdir()
    (extension / "measures" / "theirs.py").write_text(
        "from medjax.measures._declared import image_metric\n\n\n"
        "@image_metric(label='worst', lower_is_better=True)\ndef worst(pred, target):\n"
        "    return abs(pred - target).max((1, 2, 3))\n")
    assert registry.packages() == ("medjax", "extension_of_medjax")
    assert registry.modules("models")["their_net"] == "extension_of_medjax.models.their_net"
    assert "their_net" in registry.names("models")
    assert "denoise" in registry.names("tasks")  # a layer that the package has not
    assert registry.build("models", registry.spec("models", "their_net", width=7)).width == 7
    task = Denoise((0.0, 1.0), 2, measures=("psnr", "worst"))
    assert [metric.title for metric in task.metrics] == ["PSNR", "worst"]
    truth = jnp.zeros((2, 4, 4, 1)).at[:, 1].set(1.0)
    example = Example(NetworkInput(jnp.zeros_like(truth)), truth, jnp.ones(truth.shape, bool), jnp.arange(2),
                      jnp.full((2, 2), jnp.nan))
    np.testing.assert_array_equal(task.measure(Prediction(example.input.image), example)["worst"], [1, 1])


def test_an_entry_point_without_a_package_is_named(extension):
    points = extension.parent / "extension_of_medjax-1.0.dist-info" / "entry_points.txt"
    points.write_text("[medjax]\nmine = no_such_package\n")
    registry.packages.cache_clear()
    with pytest.raises(UserError, match=r"^entry point 'mine' of the group medjax: there is no package 'no_such_package'"):
        registry.names("models")


def test_two_modules_of_one_name_are_refused(extension):
    (extension / "models" / "unet.py").write_text("class UNet:\n    pass\n")
    with pytest.raises(UserError, match=r"^extension_of_medjax/models/unet\.py: medjax has a module 'unet' in models"):
        registry.names("models")


def test_a_module_without_a_class_of_its_name_says_what_it_has():
    with pytest.raises(UserError, match=r"^medjax/models/blocks\.py: has no class named .*; it has Conv, .*call it Blocks$"):
        registry.spec("models", "blocks")


def test_what_lacks_a_part_of_its_contract_is_named():
    with pytest.raises(UserError, match=r"^medjax/tasks/denoise\.py: object lacks arrange, .*of the contract Task"):
        registry.check_members("tasks", "denoise", object(), Task)
    registry.check_members("tasks", "denoise", Denoise((0.0, 1.0), 2), Task)


def test_a_file_that_lacks_a_package_says_so(tmp_path, monkeypatch):
    (tmp_path / "brokennet.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.setattr(medjax.models, "__path__", [*medjax.models.__path__, str(tmp_path)])
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        registry.find("models", "brokennet")


def test_a_value_of_the_wrong_kind_is_refused():
    with pytest.raises(UserError, match=r"models\.unet\.width"):
        registry.spec("models", "unet", width="wide")


def test_user_errors_are_one_line_with_the_place_first():
    assert str(UserError("a.nii.gz", "is cut off")) == "a.nii.gz: is cut off"
