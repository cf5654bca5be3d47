"""Exported runs as ONNX, in a Python that has onnxruntime alone: `make onnx-test`."""

import importlib.util
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from medjax.infer import folder
from medjax.infer.export import Program
from medjax.types import UserError
from tests.test_export import applied, close, on_a_scale, program_of, run_alone

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("jax2onnx"), reason="no jax2onnx; install it with `make onnx`")

FREE = {"ct_lowdose", "compress"}
"""Configs whose model takes images of any size, or multiples, in ONNX too."""
REFUSED = {"inpaint": "can't convert this network", "mri_recon": "can't convert this network", "ct_recon": "linear_map",
           "sequence": "can't convert this network", "mri_superres3d": "can't convert this network"}
CONVERTED = ["anomaly", "brain_segment", "deblur", "fuse", "hippocampus", "inpaint:model=unet", "mri_srgan", "quickstart",
             "register", "translate", "volume", "xray_classify", *sorted(FREE)]
SIZE = {"hippocampus": (16, 32, 32), "sequence": (6, 32, 48), "mri_superres3d": (16, 32, 32), "volume": (32, 32),
        "mri_recon": (48, 32)}
"""Of the images, where they are no slices of 32 x 48."""
NEEDED = ("onnxruntime", "numpy", "numpy.libs", "flatbuffers", "google", "packaging", "coloredlogs", "typing_extensions.py")


@pytest.fixture(scope="module")
def without_jax(tmp_path_factory) -> Path:
    """A folder of packages with onnxruntime and what it needs."""
    target = tmp_path_factory.mktemp("packages")
    places = [Path(sysconfig.get_path("purelib")), Path(np.__file__).parents[1]]
    for name in NEEDED:
        found = next((place / name for place in places if (place / name).exists()), None)
        if found is not None:
            (target / name).symlink_to(found)
    return target


def converted(name: str, tmp_path: Path, size: tuple[int, ...]) -> tuple[Program, Path]:
    from medjax.infer import onnx

    sizes = {"volume": (32, 32), "ct_recon": (64, 64), "mri_recon": (48, 32)}
    program = program_of(name, tmp_path / "data", sizes.get(name, ()))
    models = [onnx.convert(program, size)]
    folder.write(tmp_path / "out", folder.contents(program, models, 1, "0"), models, "")
    return program, tmp_path / "out"


@pytest.mark.slow
@pytest.mark.parametrize("name", CONVERTED)
def test_onnxruntime_alone_gives_what_the_model_does(name, tmp_path, without_jax):
    program, target = converted(name, tmp_path, () if name in FREE else SIZE.get(name, (32, 48)))
    size = program.sizes() if name in FREE else SIZE.get(name, (32, 48))
    arrays = program.example(size, 1 if program.run.config.data.normalise == "volume" else 2)
    paths = [tmp_path / f"{port.name}.npy" for port in program.inputs]
    for path, array in zip(paths, arrays, strict=True):
        np.save(path, array)
    code, said = run_alone(target, *paths, tmp_path / "made.npy", packages=without_jax, absent="jax")
    assert code == 0, said
    made = np.load(tmp_path / "made.npy")
    close(made[0] if len(made) == 1 else made, applied(program, on_a_scale(program, arrays)), program, 1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_what_jax2onnx_can_not_convert_is_refused_in_one_line(name, tmp_path):
    with pytest.raises(UserError, match=REFUSED[name]) as error:
        converted(name, tmp_path, SIZE.get(name, (32, 48)))
    assert len(str(error.value).splitlines()) == 1


def test_a_size_is_asked_for_where_one_is_needed(tmp_path):
    with pytest.raises(UserError, match=r"give the size of the images, e\.g\. --size=256,256"):
        converted("quickstart", tmp_path, ())
