"""Names to objects: what a newcomer's file becomes, and what a mistyped config says."""

import inspect

import pytest

import medjax.models
from medjax import registry
from medjax.types import UserError


def test_names_are_the_files_that_hold_a_constructor():
    names = registry.names("models")
    assert {"cnn", "srcnn", "dncnn", "redcnn", "edsr", "unet", "patch", "dcgan"} <= set(names)
    assert "blocks" not in names
    assert names == sorted(names)
    assert {"denoise", "superres"} <= set(registry.names("tasks"))
    assert {"supervised", "adversarial"} <= set(registry.names("objectives"))


@pytest.mark.parametrize("floor", ["models", "tasks", "objectives"])
def test_every_spec_has_the_keys_of_its_constructor(floor):
    for name in registry.names(floor):
        parameters = inspect.signature(registry.find(floor, name)).parameters
        defaults = {k: p.default for k, p in parameters.items() if p.default is not p.empty and k not in ("parent", "name")}
        spec = registry.spec(floor, name).to_dict()
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


@pytest.mark.parametrize("name", ["unett", "blocks", "", "unet.x", "__init__", "Unet "])
def test_an_unknown_name_lists_what_there_is(name):
    with pytest.raises(UserError, match=r"config\.model\.name: no .* in models; there is .*unet") as error:
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


def test_what_the_house_must_supply_is_named_when_missing():
    with pytest.raises(UserError, match="channels"):
        registry.build("models", registry.spec("models", "unet"), ndim=2, scale=(1, 1))


def test_one_new_file_is_a_new_model(tmp_path, monkeypatch):
    (tmp_path / "my_net.py").write_text("class MyNet:\n    def __init__(self, ndim, width=3):\n        self.width = width\n")
    monkeypatch.setattr(medjax.models, "__path__", [*medjax.models.__path__, str(tmp_path)])
    assert "my_net" in registry.names("models")
    assert registry.build("models", registry.spec("models", "my_net", width=7), ndim=2).width == 7


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
