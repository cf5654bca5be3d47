"""Fields and series: registration, volumes from projections, recurrence over frames."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import nibabel
import numpy as np
import pytest
import SimpleITK
from scipy import linalg, ndimage
from scipy.spatial.transform import Rotation

from medjax.classical import register as classical
from medjax.data.formats import nifti
from medjax.data.geometry import spacing
from medjax.data.sources.frames import Frames
from medjax.models.conv_rnn import ConvRNN, Step
from medjax.models.lapirn import LapIRN
from medjax.models.voxelmorph import VoxelMorph
from medjax.models.voxnet import VoxNet
from medjax.objectives.supervised import Supervised
from medjax.ops import displacement as ops
from medjax.physics.projections import Projections
from medjax.tasks.register import Register
from medjax.tasks.series import Series
from medjax.tasks.volume import Volume
from medjax.types import Prediction, Record, Region, UserError
from tests.test_gan import KEY, RANGE, learn, make_batch


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_warp_is_that_of_scipy(ndim):
    random = np.random.default_rng(0)
    space = (9, 8, 7)[:ndim]
    image = random.random((2, *space, 2)).astype(np.float32)
    field = (3 * random.normal(size=(2, *space, ndim))).astype(np.float32)
    places = np.stack(np.meshgrid(*map(np.arange, space), indexing="ij")) + np.moveaxis(field, -1, 1)
    expected = [[ndimage.map_coordinates(image[b, ..., c], places[b], order=1, mode="nearest") for c in range(2)]
                for b in range(2)]
    np.testing.assert_allclose(ops.warp(image, field), np.moveaxis(np.array(expected), 1, -1), atol=2e-6)


def test_a_linear_velocity_integrates_to_the_exponential_of_its_matrix():
    matrix = np.array([[0.0, 0.15], [-0.15, 0.05]])
    grid = np.stack(np.meshgrid(*[np.arange(41.0) - 20] * 2, indexing="ij"), -1)
    moved = ops.integrate(jnp.asarray(grid @ matrix.T, jnp.float32)[None])[0]
    expected = grid @ (linalg.expm(matrix) - np.eye(2)).T
    np.testing.assert_allclose(moved[12:29, 12:29], expected[12:29, 12:29], atol=0.02)


def test_the_negative_velocity_goes_back():
    field = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(1, 32, 32, 2)), (0, 5, 5, 0)) * 15
    there, back = (ops.integrate(jnp.asarray(sign * field, jnp.float32)) for sign in (1, -1))
    left = there + ops.warp(back, there)
    assert float(jnp.abs(there).max()) > 1
    assert float(jnp.abs(left[:, 8:24, 8:24]).max()) < 0.05


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_jacobian_of_an_affine_map_is_its_determinant_and_mirrors_fold(ndim):
    matrix = np.eye(ndim) + np.random.default_rng(1).normal(size=(ndim, ndim)) * 0.2
    grid = np.stack(np.meshgrid(*[np.arange(6.0)] * ndim, indexing="ij"), -1)
    field = jnp.asarray(grid @ (matrix - np.eye(ndim)).T, jnp.float32)[None]
    np.testing.assert_allclose(ops.jacobian_determinant(field), np.linalg.det(matrix), rtol=1e-4)
    assert bool((ops.jacobian_determinant(jnp.asarray(-2 * grid, jnp.float32)[None]) * (-1) ** ndim > 0).all())


def register(ndim: int, **keys) -> Register:
    return Register(RANGE, ndim, period=8, contrasts=("0",), **keys)


def test_the_known_displacement_brings_the_moving_image_onto_the_fixed_one():
    task, batch = register(2, bend=1.0), make_batch((32, 32)) | {"spacing_mm": jnp.full((4, 2), 2.0)}
    example = jax.jit(task.example)(KEY, batch)
    true, fixed = example.target, example.input.image[..., 1:2]
    measure = jax.jit(lambda displacement, example: task.measure(Prediction(displacement), example))
    right, wrong = measure(true, example), measure(0 * true, example)
    np.testing.assert_allclose(right["registration_error"], 0, atol=1e-5)
    np.testing.assert_allclose(right["folds"], 0)
    tissue = np.asarray(fixed[..., 0] > 0.1)
    distance = 2.0 * np.linalg.norm(true, axis=-1)
    np.testing.assert_allclose(wrong["registration_error"], [d[t].mean() for d, t in zip(distance, tissue, strict=True)],
                               rtol=1e-4)
    off, on = (np.abs(np.asarray(ops.warp(example.input.image[..., :1], u)) - fixed)[:, 6:-6, 6:-6].mean()
               for u in (0 * true, true))
    assert on < 0.1 * off


@pytest.mark.slow
@pytest.mark.parametrize("model", [VoxelMorph(2, 2, (1, 1), width=8, depth=2, steps=4), LapIRN(2, 2, (1, 1), 8, levels=2)],
                         ids=["voxelmorph", "lapirn"])
def test_networks_of_registration_learn(model):
    """Steps see a new displacement each; what was learnt is seen on one that is the same before and after."""
    task, batch = register(2, turn=0.0, bend=0.5), make_batch((16, 16))
    objective = Supervised(task, model, "mse + 0.0001*smooth")
    before, after, _ = learn(task, objective, batch, 60, lr=2e-2 if isinstance(model, VoxelMorph) else 5e-3)
    example = jax.jit(task.example)(jax.random.key(5), batch)
    keys = jax.random.split(KEY, len(batch["image"]))

    @jax.jit
    def loss(state):
        pred = objective.predict(state.params, state.variables, example.input, keys)
        return task.losses(pred.image, example)["mse"].value

    assert loss(after) < 0.25 * loss(before)


@pytest.mark.parametrize("model", [VoxelMorph(3, 3, (1, 1, 1), width=4, depth=2, dtype="bfloat16"),
                                   LapIRN(3, 3, (1, 1, 1), width=4, dtype="bfloat16")], ids=["voxelmorph", "lapirn"])
def test_networks_of_registration_take_volumes_in_half_precision(model):
    field, _ = jax.eval_shape(model.init_with_output, KEY, jnp.zeros((1, 9, 8, 10, 2)))
    assert (field.shape, field.dtype) == ((1, 9, 8, 10, 3), jnp.float32)


def test_an_untrained_pyramid_moves_nothing_and_its_levels_add_up():
    """The velocity of a coarse level, in its own voxels, is twice as many of the next."""
    model, x = LapIRN(2, 2, (1, 1), width=4, levels=2, passes=1, steps=6), jnp.zeros((1, 16, 16, 2))
    params = model.init(KEY, x)["params"]
    np.testing.assert_allclose(model.apply({"params": params}, x), 0, atol=1e-4)
    for level, shift in enumerate((1.0, 0.5)):  # images without structure have no force
        bias = params[f"Refinement_{level}"]["Conv_8"]["bias"]
        params[f"Refinement_{level}"]["Conv_8"]["bias"] = bias.at[0].set(shift)
    np.testing.assert_allclose(model.apply({"params": params}, x)[0, 4:-4, 4:-4], np.broadcast_to((2.5, 0.0), (8, 8, 2)),
                               atol=1e-3)


def test_peepholes_are_those_of_the_convolutional_lstm():
    """One step of Shi et al. (2015), equation 3, where nothing comes from the frame before but its memory."""
    random = np.random.default_rng(0)
    gates, memory = random.normal(size=(2, 5, 4, 12)).astype(np.float32), random.normal(size=(2, 5, 4, 3)).astype(np.float32)
    weights = random.normal(size=(3, 3)).astype(np.float32)
    params = {"Conv_0": {"kernel": jnp.zeros((3, 3, 3, 12))}, "peepholes": weights}
    (_, kept), h = Step(3, "lstm", peepholes=True).apply({"params": params}, (jnp.zeros_like(memory), memory), gates)

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    enter, forget, leave, new = np.split(gates, 4, -1)
    expected = sigmoid(forget + 1 + weights[1] * memory) * memory + sigmoid(enter + weights[0] * memory) * np.tanh(new)
    np.testing.assert_allclose(kept, expected, atol=1e-5)
    np.testing.assert_allclose(h, sigmoid(leave + weights[2] * expected) * np.tanh(expected), atol=1e-5)


def test_peepholes_need_a_memory():
    model = ConvRNN(3, 1, (1, 1, 1), cell="gru", peepholes=True)
    with pytest.raises(UserError, match=r"^config\.model\.peepholes: .*config\.model\.cell=lstm"):
        jax.eval_shape(model.init, KEY, jnp.zeros((1, 2, 8, 8, 1)))


def test_optical_flow_finds_a_known_motion():
    random = np.random.default_rng(0)
    texture = ndimage.gaussian_filter(random.random((48, 48)), 2)
    texture = ((texture - texture.min()) / np.ptp(texture)).astype(np.float32)
    flow = classical.ilk(texture, np.roll(texture, 2, 0))
    np.testing.assert_allclose(np.median(flow.reshape(-1, 2), 0), [2, 0], atol=0.2)


@pytest.mark.parametrize("shape", [(48, 40), (20, 24, 28)])
def test_demons_find_a_known_motion(shape):
    random = np.random.default_rng(0)
    texture = ndimage.gaussian_filter(random.random(shape), 2)
    texture = ((texture - texture.min()) / np.ptp(texture)).astype(np.float32)
    flow = classical.demons(texture, np.roll(texture, 2, 0), 1.5)
    inner = flow[(slice(6, -6),) * len(shape)].reshape(-1, len(shape))
    np.testing.assert_allclose(np.median(inner, 0), [2, *[0] * (len(shape) - 1)], atol=0.2)


@pytest.mark.parametrize("shape", [(48, 40), (20, 24, 28)])
def test_splines_find_a_known_motion_across_contrasts(shape):
    """The moving image is bright where the fixed one is dark, and lies two voxels further along the first axis."""
    random = np.random.default_rng(0)
    texture = ndimage.gaussian_filter(random.random(shape), 3)
    texture = ((texture - texture.min()) / np.ptp(texture)).astype(np.float32)
    flow = classical.bspline(texture, 1 - np.roll(texture, 2, 0) ** 2, 16.0)
    inner = flow[(slice(6, -6),) * len(shape)].reshape(-1, len(shape))
    np.testing.assert_allclose(np.median(inner, 0), [2, *[0] * (len(shape) - 1)], atol=0.3)
    assert not classical.bspline(texture, np.zeros_like(texture)).any()


def test_a_register_task_names_what_the_images_lack():
    record = Record(np.zeros((20, 8, 8, 2), np.uint8), "a", "a", contrasts=("T1", "T2"), spacing_mm=(3.0, 1.0, 1.0))
    split = {"train": [Region.whole(record)]}
    assert Register(RANGE, 2).resolve_from_data(split) == {"contrasts": ("T1", "T2")}
    with pytest.raises(UserError, match="no contrast PD"):
        Register(RANGE, 2, moving="PD").resolve_from_data(split)
    bare = replace(record, id="bare", spacing_mm=())
    with pytest.raises(UserError, match=r"^config\.data\.spacing_mm: bare has no voxel size"):
        Register(RANGE, 2).resolve_from_data(split | {"val": [Region.whole(bare)]})
    with pytest.raises(UserError, match="task=register"):
        jax.eval_shape(VoxelMorph(2, 1, (1, 1)).init, KEY, jnp.zeros((1, 16, 16, 2)))
    with pytest.raises(UserError, match="task=register"):
        jax.eval_shape(LapIRN(2, 1, (1, 1)).init, KEY, jnp.zeros((1, 16, 16, 2)))


def test_two_projections_are_sums_from_the_front_and_from_the_side():
    x = np.random.default_rng(0).random((2, 3, 6, 6, 1)).astype(np.float32)
    seen = Projections(2)(x)
    np.testing.assert_allclose(seen[..., 0], x.mean(2)[..., 0], atol=1e-6)
    np.testing.assert_allclose(seen[..., 1], x.mean(3)[..., 0], atol=1e-5)


def test_projections_end_where_the_volume_ends():
    """A square's chords at 45 degrees, by geometry."""
    seen = Projections(4)(jnp.ones((1, 1, 16, 16, 1)))[0, 0]
    offset = np.abs(np.arange(16) - 7.5)
    for view, chord in enumerate((16 + 0 * offset, np.sqrt(2) * 16 - 2 * offset) * 2):
        np.testing.assert_allclose(seen[:, view], chord / 16, rtol=1e-5)


def test_backprojection_is_the_adjoint():
    random = np.random.default_rng(0)
    operator = Projections(3)
    x, y = random.normal(size=(1, 2, 7, 7, 1)).astype(np.float32), random.normal(size=(1, 2, 7, 3)).astype(np.float32)
    np.testing.assert_allclose((operator(x) * y).sum(), (x * operator.backproject(y, 7)).sum() * 3 / 7, rtol=1e-4)


@pytest.mark.slow
def test_sirt_is_nearer_to_the_volume_than_smeared_projections():
    batch = make_batch((4, 12, 12), count=1)
    task = Volume(RANGE, 3, views=6)
    example = task.example(KEY, batch)
    rows = {row: reference.run(example, 1.0) for row, reference in task.references().items()}
    error = {row: float(np.abs(image - example.target).mean()) for row, image in rows.items()}
    assert error["sirt"] < 0.5 * error["input"]


@pytest.mark.slow
def test_voxnet_overfits_a_batch():
    task = Volume(RANGE, 3)
    model = VoxNet(3, 1, (1, 1, 1), width=8, depth=1, lift=4, blocks=1, dtype="bfloat16")
    *_, logs = learn(task, Supervised(task, model), make_batch((8, 8, 8)), 60, lr=1e-2)
    assert logs[-1]["model/loss"] < 0.1 * logs[0]["model/loss"]


def test_volumes_need_projections_and_square_planes():
    with pytest.raises(UserError, match="task=volume"):
        jax.eval_shape(VoxNet(3, 1, (1, 1, 1)).init, KEY, jnp.zeros((1, 8, 8, 8, 1)))
    with pytest.raises(UserError, match="8x6"):
        Projections(2)(jnp.zeros((1, 4, 8, 6, 1)))
    with pytest.raises(UserError, match="ndim"):
        Volume(RANGE, 2)


@pytest.mark.slow
def test_a_recurrent_network_overfits_a_series():
    task = Series(RANGE, 3, noise="gaussian", factor=2)
    model = ConvRNN(3, 1, task.scale, width=8, both_ways=False, dtype="bfloat16")
    *_, logs = learn(task, Supervised(task, model), make_batch((3, 12, 12)), 40, lr=1e-2)
    assert logs[-1]["model/loss"] < 0.65 * logs[0]["model/loss"]


@pytest.mark.parametrize("both_ways", [False, True])
def test_one_way_frames_know_nothing_of_the_future_and_both_ways_everything(both_ways):
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 6, 1)).astype(np.float32)
    x[1] = x[0]
    x[1, 3] += 1
    model = ConvRNN(3, 1, (1, 1, 1), width=4, cell="lstm", both_ways=both_ways)
    random = np.random.default_rng(1)
    params = jax.tree.map(lambda a: random.normal(size=a.shape).astype(np.float32) / 2, jax.eval_shape(model.init, KEY, x))
    one, other = jax.jit(model.apply)(params, x)
    moved = np.abs(one - other).max((1, 2, 3))
    assert (moved[0] > 0) == both_ways
    assert moved[3] > 0


@pytest.mark.slow
def test_series_are_compared_frame_by_frame():
    task, batch = Series(RANGE, 3, factor=2), make_batch((8, 24, 24), count=2)
    example = task.example(KEY, batch)
    assert example.input.image.shape == (2, 8, 12, 12, 1)
    perfect = task.measure(Prediction(example.target), example)
    np.testing.assert_allclose(perfect["ssim"], 1, atol=1e-5)
    for row, reference in task.references().items():
        assert reference.run(jax.device_get(example), 1.0).shape == (2, 8, 24, 24, 1), row
    with pytest.raises(UserError, match="ndim"):
        Series(RANGE, 2)
    with pytest.raises(UserError, match="first axis"):
        jax.eval_shape(ConvRNN(2, 1, (1, 1)).init, KEY, jnp.zeros((1, 8, 8, 1)))


def test_frames_of_a_file_become_series(tmp_path):
    values = np.random.default_rng(0).integers(0, 99, (5, 6, 3, 4)).astype(np.int16)
    nibabel.Nifti1Image(values, np.eye(4)).to_filename(tmp_path / "run.nii.gz")
    cache = str(tmp_path / "cache")
    records = Frames(str(tmp_path / "run.nii.gz"), cache=cache).load()
    assert [r.image.shape for r in records] == [(4, 6, 5, 1)] * 3
    np.testing.assert_array_equal(records[2].image[1, :, :, 0], values[:, :, 2, 1].T)
    assert len({r.subject for r in records}) == 3
    assert len(Frames(str(tmp_path / "run.nii.gz"), cache=cache, length=2).load()) == 6
    nibabel.Nifti1Image(values[..., 0], np.eye(4)).to_filename(tmp_path / "one.nii.gz")
    with pytest.raises(UserError, match="1 frames"):
        Frames(str(tmp_path / "one.nii.gz"), cache=cache).load()


@pytest.mark.parametrize("shape", [(3, 6, 5), (6, 5)], ids=["volumes", "cine"])
def test_a_network_sees_the_times_of_a_slice_and_its_output_goes_back_to_them(shape):
    """Each frame's value says which it is; a network that changes nothing gives the frames back."""
    frames = [np.full((*shape, 1), 10.0 * time, np.float32) for time in range(4)]
    if len(shape) == 3:
        frames = [frame + np.arange(3, dtype=np.float32).reshape(3, 1, 1, 1) for frame in frames]
    task = Series((0.0, 1.0), 3, frames="times")
    stacks = task.arrange([Record(frame, f"a#{time:03d}", "a") for time, frame in enumerate(frames)])
    assert [stack.image[:, 0, 0, 0].tolist() for stack in stacks] == [
        [number, 10 + number, 20 + number, 30 + number] for number in range(3 if len(shape) == 3 else 1)]
    (output,) = task.outputs([Prediction(stack.image) for stack in stacks], stacks)
    np.testing.assert_array_equal(output.images, frames)


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_displacement_that_is_written_is_itks(ndim, tmp_path):
    """SimpleITK finds the warped image from the field and the moving image as files; also of slices of an oblique volume."""
    random = np.random.default_rng(0)
    turn = Rotation.from_euler("xyz", (10, -15, 20), degrees=True).as_matrix()
    affine = np.eye(4)
    affine[:3] = np.c_[turn @ np.array([[0, 0, -1.5], [0, -2.0, 0], [3.0, 0, 0]]), [30, -20, 5]]
    moving = ndimage.gaussian_filter(random.random((10, 14, 16)), 1.5)[..., None].astype(np.float32)
    record = Record(np.repeat(moving, 2, -1), "a", "a", affine=affine, spacing_mm=spacing(affine))
    field = np.stack([ndimage.gaussian_filter(random.normal(size=moving.shape[:-1]), 3) * 20 for _ in range(ndim)], -1)
    task = Register((0.0, 1.0), ndim, contrasts=("0",))

    class Folder:
        def file(self, name, suffix):
            return tmp_path / (name + suffix)

        def in_source_units(self, image, record, widths=False):
            return image

    for output in task.outputs([Prediction(np.float32(field))], [record]):
        output.write(Folder())
    nifti.write_image(tmp_path / "moving.nii.gz", moving, record)
    files = {name: SimpleITK.ReadImage(str(tmp_path / f"{name}.nii.gz")) for name in ("moving", "warped", "displacement")}
    transform = SimpleITK.DisplacementFieldTransform(SimpleITK.Cast(files["displacement"], SimpleITK.sitkVectorFloat64))
    found = SimpleITK.Resample(files["moving"], files["warped"], transform, SimpleITK.sitkLinear)
    theirs, ours = (SimpleITK.GetArrayFromImage(image)[2:-2, 2:-2, 2:-2] for image in (found, files["warped"]))
    np.testing.assert_allclose(theirs, ours, atol=2e-4)
