"""Exported runs: in a process that has no medjax, against what `medjax.apply` gives."""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

import jax
import jax.numpy as jnp
import nibabel
import numpy as np
import pytest

from medjax.data.normalise import normalised
from medjax.data.pipeline import train_stream
from medjax.infer import folder
from medjax.infer.export import Program, make_exportable, stablehlo
from medjax.infer.predict import make_predict
from medjax.train.run import Run, assemble, load_splits, resolve, restore_best
from medjax.types import Record, State, UserError
from tests.commands import DRAWN, command
from tests.test_configs import NAMES, tiny

PACKAGES = sysconfig.get_path("purelib")
# Without site-packages' .pth files, by which an editable medjax is found.
ALONE = """
import runpy, sys
sys.path[:0] = [{packages!r}]
for name in {absent!r}:
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit(name + " can be imported")
sys.argv = {argv!r}
runpy.run_path({script!r}, run_name="__main__")
"""


def run_alone(exported: Path, *args: str | Path, packages: str | Path = PACKAGES,
              absent: str = "") -> tuple[int, str]:
    """`run.py` of an exported folder in a Python without medjax, and without `absent`; its exit code and what it says."""
    argv = [str(exported / "run.py"), *map(str, args)]
    code = ALONE.format(packages=str(packages), argv=argv, script=argv[0], absent=[*filter(None, ("medjax", absent))])
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=300, check=False,
                          env={"JAX_PLATFORMS": "cpu", "PATH": "", "XLA_FLAGS": "--xla_backend_optimization_level=0"})
    return done.returncode, done.stdout + done.stderr


def exported(program: Program, target: Path) -> Path:
    """The folder of a program."""
    models = [stablehlo(program)]
    folder.write(target, folder.contents(program, models, 1, "0"), models, "")
    return target


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A denoiser that has begun to learn."""
    workdir = tmp_path_factory.mktemp("runs") / "begun"
    code, _, err = command("train.py", *DRAWN, "--config.steps=2", f"--workdir={workdir}")
    assert code == 0, err
    return workdir


@pytest.fixture(scope="module")
def written(trained, tmp_path_factory) -> tuple[Path, str]:
    """Its export by the command, and what that says."""
    target = tmp_path_factory.mktemp("exports") / "denoiser"
    code, out, err = command("-m", "medjax.export", f"--workdir={trained}", f"--output={target}")
    assert code == 0, err
    return target, out


def test_the_command_says_what_it_wrote(trained, written):
    target, out = written
    assert sorted(path.name for path in target.iterdir()) == ["manifest.json", "model.stablehlo", "model_card.md", "run.py"]
    assert "(b, 16*h, 16*w, 1)" in out
    assert out.splitlines()[-1] == f"next: python {target / 'run.py'} IMAGE.npy OUTPUT.npy"
    manifest = json.loads((target / "manifest.json").read_text())
    assert manifest["models"]["stablehlo"]["difference"] <= 1e-5
    assert {"model.stablehlo", "run.py", "model_card.md"} == set(manifest["files"])
    card = (target / "model_card.md").read_text()
    assert "Patients: 16 in train, 2 in val, 2 in test." in card
    code, _, err = command("-m", "medjax.export", f"--workdir={trained}", f"--output={target}")
    assert (code, err) == (2, f"error: {target}: is there already; name a new folder\n")


def test_any_size_alone_is_what_apply_gives(trained, written, tmp_path):
    """Slices of a volume whose sizes are no multiples of 16, in physical units."""
    target, _ = written
    run, state = restore_best(trained)
    volume = np.float32(np.random.default_rng(0).uniform(*run.config.data.range, (3, 41, 50)))
    np.save(tmp_path / "in.npy", volume)
    code, said = run_alone(target, tmp_path / "in.npy", tmp_path / "out.npy")
    assert code == 0, said
    wanted = run.task.in_units(make_predict(run, state)(Record(volume[..., None], "v", "v")).image)[..., 0]
    made = np.load(tmp_path / "out.npy")
    assert made.shape == volume.shape
    assert np.abs(wanted - volume).max() > 1e-3
    np.testing.assert_allclose(made, wanted, atol=1e-5 * np.ptp(run.config.data.range))


def test_what_does_not_fit_is_refused_in_one_line(written, tmp_path):
    target, _ = written
    np.save(tmp_path / "colour.npy", np.zeros((32, 32, 3), np.float32))
    np.save(tmp_path / "4d.npy", np.zeros((1, 2, 3, 32, 32), np.float32))
    for name, words in (("colour.npy", "has the shape (32, 32, 3); the model takes (16*h, 16*w, 1)"),
                        ("4d.npy", "the model takes (16*h, 16*w, 1)"), ("none.npy", "no such file")):
        code, said = run_alone(target, tmp_path / name, tmp_path / "out.npy")
        assert code == 2
        assert words in said
        assert len(said.splitlines()) == 1
    assert not (tmp_path / "out.npy").exists()


def test_nifti_keeps_its_place(written, tmp_path):
    affine = np.array([[-1.5, 0.1, 0, 3], [0.1, 1.5, 0, -7], [0, 0, 3, 11], [0, 0, 0, 1.0]])
    volume = nibabel.Nifti1Image(np.random.default_rng(0).integers(0, 200, (30, 26, 2)).astype(np.int16), affine)
    volume.to_filename(tmp_path / "in.nii.gz")
    code, said = run_alone(written[0], tmp_path / "in.nii.gz", tmp_path / "out.nii.gz")
    assert code == 0, said
    wanted, made = nibabel.as_closest_canonical(volume), nibabel.load(tmp_path / "out.nii.gz")
    np.testing.assert_allclose(made.affine, wanted.affine, atol=1e-5)
    assert np.corrcoef(made.get_fdata().ravel(), wanted.get_fdata().ravel())[0, 1] > 0.9


def test_a_damaged_model_is_not_run(written, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in written[0].iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "model.stablehlo").write_bytes((written[0] / "model.stablehlo").read_bytes()[:-1] + b"!")
    np.save(tmp_path / "in.npy", np.zeros((32, 32), np.float32))
    code, said = run_alone(copy, tmp_path / "in.npy", tmp_path / "out.npy")
    assert code == 2
    assert "model.stablehlo: is damaged" in said


def test_two_inputs_and_their_order(tmp_path):
    """Inpainting takes an image and where it is known; weights as they begin."""
    program = program_of("inpaint", tmp_path / "data")
    target = exported(program, tmp_path / "out")
    arrays = program.example((30, 41), 1)
    for port, array in zip(program.inputs, arrays, strict=True):
        np.save(tmp_path / f"{port.name}.npy", array[0])
    code, said = run_alone(target, tmp_path / "image.npy", tmp_path / "out.npy")
    assert code == 2
    assert "inputs: 1 were given; the model takes image known" in said
    code, said = run_alone(target, tmp_path / "image.npy", tmp_path / "known.npy", tmp_path / "out.npy")
    assert code == 0, said
    close(np.load(tmp_path / "out.npy"), applied(program, arrays, pad=16), program)


SIZES = {"ct_recon": (64, 64), "mri_recon": (48, 32), "volume": (32, 32)}
"""Of images that only one size can be exported for."""
REFUSED = {"synthesis": "makes images from noise", "htc2022": "turned by the angles of its own geometry"}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_config_is_exported_or_says_why_not(name, tmp_path):
    """Weights as they begin: what an export may get wrong does not depend on them."""
    run, state = begun(name, tmp_path / "data")
    if name in REFUSED:
        with pytest.raises(UserError, match=REFUSED[name]):
            make_exportable(run, state)
        return
    if name in SIZES:
        with pytest.raises(UserError, match="--size: "):
            make_exportable(run, state)
    if name == "ct_recon":
        run.config.data.domain.spacing_mm, known = (1.0, 2.0), run.config.data.domain.spacing_mm
        with pytest.raises(UserError, match="--spacing: the run was trained on pixels of 1 to 2 mm"):
            make_exportable(run, state, SIZES[name])
        run.config.data.domain.spacing_mm = known
    program = make_exportable(run, state, SIZES.get(name, ()))
    assert (program.size == ()) == (name not in SIZES)
    target = exported(program, tmp_path / "out")
    arrays = program.example(program.sizes(), 1 if program.run.config.data.normalise == "volume" else 2)
    paths = [tmp_path / f"{port.name}.npy" for port in program.inputs]
    for path, array in zip(paths, arrays, strict=True):
        np.save(path, array)
    code, said = run_alone(target, *paths, tmp_path / "made.npy")
    assert code == 0, said
    # As far is ct_recon from itself with XLA's convolutions in the place of oneDNN's.
    limit = 5e-5 if name == "ct_recon" else 1e-5
    made = np.load(tmp_path / "made.npy")
    close(made[0] if len(made) == 1 else made, applied(program, on_a_scale(program, arrays)), program, limit)


def program_of(name: str, folder: Path, size: tuple[int, ...] = ()) -> Program:
    """The program of a config at a test size, before training."""
    return make_exportable(*begun(name, folder), size)


def begun(name: str, folder: Path) -> tuple[Run, State]:
    """A run of a config at a test size, before training."""
    config = tiny(name, folder)
    if "count" in config.data.source:
        config.data.source.count = 12
    splits = load_splits(config)
    run = assemble(resolve(config, splits))
    stream = train_stream(splits["train"], batch_size=2, patch=tuple(config.data.patch), ndim=config.data.ndim)
    example = jax.eval_shape(run.task.example, jax.random.key(0), stream.first())
    stream.close()
    key = jax.random.key(0)
    params, variables = jax.jit(run.objective.init)(key, jax.tree.map(lambda a: jnp.ones(a.shape, a.dtype), example))
    return run, State(jnp.zeros((), jnp.int32), params, variables, {}, {}, key)


def on_a_scale(program: Program, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """What the model sees of images `(B, *space, C)` where each has a scale of its own."""
    if program.run.config.data.normalise != "volume":
        return arrays
    return [np.stack([normalised(Record(image, "v", "v"), "volume")[0].in_units() for image in arrays[0]])]


def applied(program: Program, arrays: list[np.ndarray], pad: int = 1) -> np.ndarray:
    """What the live program gives for each sample alone, the image padded to a multiple and cut again, as `apply` has it."""
    compiled, made = jax.jit(program.function), []
    for sample in zip(*arrays, strict=True):
        space = sample[0].shape[:-1]
        pads = [(0, -n % pad) for n in space]
        padded = [np.pad(array, [*pads, (0, 0)], mode="edge")[None] for array in sample]
        out = np.asarray(compiled(*padded))[0]
        made.append(out[tuple(slice(0, n) for n in space)] if pad > 1 else out)
    return np.squeeze(np.stack(made), 0) if len(made) == 1 else np.stack(made)


def close(made: np.ndarray, wanted: np.ndarray, program: Program, limit: float = 1e-5) -> None:
    """As a part of the range, or of the largest value."""
    assert made.shape == wanted.shape
    reach = np.ptp(program.run.task.data_range) if program.output.unit == "{units}" else 1.0
    assert np.abs(made - wanted).max() <= limit * max(reach, np.abs(wanted).max())
