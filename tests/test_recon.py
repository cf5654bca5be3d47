"""Reconstruction: tasks with raw measurements, networks with physics inside, and learning without truth."""

import importlib
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from medjax import registry
from medjax.classical import iterative
from medjax.data.sources.kspace import Kspace
from medjax.infer.plug_and_play import plug_and_play
from medjax.models.consistency import consistent
from medjax.physics.mri import to_channels, to_complex
from medjax.physics.optics import Blur, Mask
from medjax.physics.sampling import ComplexChannels, PerSample, Subset
from medjax.tasks._reconstruction import measurement_of
from medjax.tasks.ct_lowdose import CtLowDose
from medjax.tasks.ct_recon import CtRecon
from medjax.tasks.deblur import Deblur
from medjax.tasks.denoise import Denoise
from medjax.tasks.inpaint import Inpaint
from medjax.tasks.mri_recon import MriRecon
from medjax.train.optim import optimizer
from medjax.train.run import assemble, load_splits, resolve
from medjax.train.step import init_state, make_predict, make_step
from medjax.types import Measurement, NetworkInput, Prediction, UserError

KEY = jax.random.key(0)
HU = (-1000.0, 1000.0)
SMALL = {
    "modl": {"iterations": 2, "cg_iterations": 3, "width": 4, "depth": 1},
    "varnet": {"iterations": 2, "width": 4, "depth": 1},
    "primal_dual": {"iterations": 2, "width": 6, "memory": 2},
    "unet": {"width": 6, "depth": 2},
    "cnn": {"features": (8, 8), "kernels": (3, 3, 3)},
}


def squares(n=2, size=16, ndim=2) -> np.ndarray:
    """Bright boxes on 0, in unit range."""
    image = np.zeros((n, *(size,) * ndim, 1), np.float32)
    for i in range(n):
        image[(i, *(slice(3 + i, size - 4),) * ndim)] = 0.5
        image[(i, *(slice(6, 9 + i),) * ndim)] = 0.9
    return image


def batch(unit, data_range=(0.0, 1.0), pixel_mm=1.0):
    n, (low, high) = len(unit), data_range
    return {"image": jnp.asarray(unit * (high - low) + low), "slope": jnp.ones(n), "intercept": jnp.zeros(n),
            "count": jnp.ones(n), "id": jnp.arange(n, dtype=jnp.uint32),
            "spacing_mm": jnp.full((n, unit.ndim - 2), pixel_mm)}


def network(name, ndim=2, channels=1, **changes):
    return registry.build("models", registry.spec("models", name, **SMALL[name] | changes), ndim=ndim, channels=channels,
                        scale=(1,) * ndim)


def fit(task, objective, images, steps=60, lr=5e-3):
    """The loss by step, and the state after them."""
    rules = {"model": optimizer(steps, name="adam", lr=lr, warmup=5)}
    state = jax.jit(lambda batch: init_state(task, objective, rules, 0.0, batch, KEY))(images)
    step = jax.jit(make_step(task, objective, rules, 0.0))
    losses = []
    for _ in range(steps):
        state, logs = step(state, images)
        losses.append(float(logs["model/loss"]))
        assert np.isfinite(float(logs["model/grad_norm"]))
    return losses, state


def objective(name, task, model, **values):
    return registry.build("objectives", registry.spec("objectives", name, **values), task=task, model=model)


def dense(A, shape) -> np.ndarray:
    """The matrix of an operator on one image."""
    basis = jnp.eye(int(np.prod(shape))).reshape(-1, *shape)
    return np.asarray(jax.jit(A)(basis), np.float64).reshape(len(basis), -1).T


@pytest.mark.slow
@pytest.mark.parametrize("name", ["modl", "varnet", "primal_dual"])
def test_networks_with_physics_learn_one_batch_by_heart(name):
    task = CtRecon(HU, 2, views=6)
    losses, _ = fit(task, objective("supervised", task, network(name), loss="l2"), batch(squares(), HU), lr=2e-2)
    assert losses[-1] < 0.15 * losses[0], losses[::10]


def test_data_consistency_is_the_exact_minimum():
    A = CtRecon(HU, 2, views=5).operator((8, 8))
    random = np.random.default_rng(0)
    y, near = random.normal(size=(1, 5, 12, 1)), random.normal(size=(1, 8, 8, 1))
    matrix = dense(A, (8, 8, 1))
    expected = np.linalg.solve(matrix.T @ matrix + 0.1 * np.eye(64), matrix.T @ y.ravel() + 0.1 * near.ravel())
    found = jax.jit(lambda y, near: consistent(A, y, near, 0.1, 60))(jnp.float32(y), jnp.float32(near))
    np.testing.assert_allclose(np.ravel(found), expected, atol=2e-5)


def test_modl_keeps_known_voxels_in_3d():
    """With a weight near 0, what was measured without noise stays."""
    task = Inpaint((0.0, 1.0), 3)
    example = jax.jit(task.example)(KEY, batch(squares(1, 12, 3)))
    model = network("modl", 3, iterations=1, weight=1e-5)
    found = jax.jit(lambda given: model.init_with_output(KEY, given.image, given.context)[0])(example.input)
    known = np.asarray(example.input.context.operator.operator.mask[0, 0]) > 0
    assert 0.4 < known.mean() < 0.6
    np.testing.assert_allclose(np.asarray(found)[0][known], np.asarray(example.target)[0][known], atol=1e-4)


def test_modl_shares_its_weights_or_not():
    task = CtRecon(HU, 2, views=4)
    example = jax.eval_shape(task.example, KEY, batch(squares(), HU))
    given = example.input
    count = {shared: len(jax.eval_shape(network("modl", shared=shared).init, KEY, given.image, given.context)["params"])
             for shared in (True, False)}
    assert count == {True: 1, False: 2}


def test_each_sample_meets_its_own_operator():
    kernels = jax.random.uniform(KEY, (2, 3, 5))
    A = PerSample(Blur((kernels,)))
    x, y = (jax.random.normal(jax.random.key(i), (2, 9, 9, 1)) for i in (1, 2))
    for i in range(2):
        np.testing.assert_allclose(A(x)[i], Blur((kernels[i],))(x[i][None])[0], atol=1e-6)
    np.testing.assert_allclose(jnp.vdot(A(x), y), jnp.vdot(x, A.adjoint(y)), rtol=1e-4)


@pytest.mark.parametrize("solve", [iterative.tv, iterative.l1_wavelet, iterative.cgls])
def test_samples_with_operators_of_their_own_are_solved_as_if_alone(solve):
    """Blurs of a norm of 1 and of 3."""
    kernels = jax.random.uniform(KEY, (2, 3, 3))
    kernels = kernels / kernels.sum((1, 2), keepdims=True) * jnp.array([1.0, 3.0]).reshape(2, 1, 1)
    y = PerSample(Blur((kernels,)))(jnp.asarray(squares(2, 32)))
    run = jax.jit(lambda kernels, y: solve(PerSample(Blur((kernels,))), y, 10 if solve is iterative.cgls else 0.01))
    together = run(kernels, y)
    for i in range(2):
        np.testing.assert_allclose(together[i], run(kernels[i:i + 1], y[i:i + 1])[0], atol=1e-5)


def test_a_part_of_a_measurement_and_complex_channels_have_exact_adjoints():
    keep = (jax.random.uniform(KEY, (2, 6, 6, 1)) < 0.5).astype(jnp.float32)
    part = Subset(Mask(jnp.ones((1, 6, 6, 1))), keep, jnp.full(2, 0.5))
    A = ComplexChannels(part)
    x = jax.random.normal(jax.random.key(1), (2, 6, 6, 2))
    y = to_complex(jax.random.normal(jax.random.key(2), (2, 6, 6, 2)))
    np.testing.assert_allclose(to_channels(to_complex(x)), x)
    np.testing.assert_allclose(jnp.vdot(y, A(x)).real, jnp.vdot(A.adjoint(y), x), rtol=1e-5)
    np.testing.assert_allclose(A.init(y), to_channels(2 * y * keep), rtol=1e-6)


def best_psnr(task, example) -> dict[str, float]:
    """Of every reference, at the best of three strengths of its grid."""
    def psnr(image) -> float:
        return float(task.measure(Prediction(image), example)["psnr"].mean())

    return {name: max(psnr(reference.run(example, strength)) for strength in reference.strengths[2:7:2] or (1.0,))
            for name, reference in task.references().items()}


@pytest.mark.slow
def test_classical_reconstructions_stand_beside_the_model():
    task = CtRecon(HU, 2, views=10)
    example = jax.jit(task.example)(KEY, batch(squares(1, 32), HU))
    score = best_psnr(task, example)
    assert set(score) == {"input", "fbp-hann", "sirt", "tikhonov", "tv", "l1-wavelet"}
    assert score["tv"] > score["input"] + 3, score
    assert min(score["sirt"], score["tikhonov"]) > score["input"], score


def test_the_input_of_ct_is_fbp_in_unit_range():
    """Many views without noise give the image back, whatever the size of the pixels."""
    smooth = np.exp(-np.square(np.linspace(-3, 3, 64))[:, None] - np.square(np.linspace(-3, 3, 64))[None])
    for task, pixel_mm in ((CtRecon(HU, 2, views=180), 0.3), (CtRecon(HU, 2, views=180, span=360.0, beam="fan"), 1.0)):
        example = jax.jit(task.example)(KEY, batch(np.float32(smooth)[None, ..., None], HU, pixel_mm=pixel_mm))
        np.testing.assert_allclose(example.input.image, example.target, atol=7e-3)  # the projector's share


def test_low_dose_noise_follows_from_the_pixels_of_the_file():
    """The noise that is asked for in 20 cm of water is there whatever its pixels; the path through them is counted in mm."""
    for pixel_mm in (4.0, 2.0):
        grid = (np.arange(int(240 / pixel_mm)) + 0.5) * pixel_mm - 120
        disc = np.hypot(grid[:, None], grid) < 100
        task = CtLowDose(HU, 2, dose=(1.0, 1.0), noise_hu=30.0, electronic=0.0, measured=False)
        water = np.where(disc, -HU[0] / (HU[1] - HU[0]), 0)[None, ..., None]
        noisy = jax.jit(task.example)(KEY, batch(water, HU, pixel_mm=pixel_mm)).input.image[0, ..., 0] * (HU[1] - HU[0])
        middle = np.hypot(grid[:, None], grid) < 40
        assert 20 < float(np.asarray(noisy)[middle].std()) < 45


@pytest.mark.slow
def test_low_dose_noise_grows_as_the_dose_falls():
    water = np.full((1, 48, 48, 1), 0.5, np.float32)
    spread = {}
    for dose in (1.0, 0.25):
        task = CtLowDose(HU, 2, dose=(dose, dose), photons=2e4, electronic=0.0, measured=False)
        example = jax.jit(task.example)(KEY, batch(water, HU))
        spread[dose] = float(jnp.std(example.input.image - example.target))
    np.testing.assert_allclose(spread[0.25] / spread[1.0], 2, rtol=0.05)
    nothing = CtLowDose(HU, 2, dose=(1.0, 1.0), measured=True).example(KEY, batch(water, HU))
    np.testing.assert_allclose(nothing.input.image, nothing.target, atol=1e-5)


@pytest.mark.parametrize("options", [{"blur": "gaussian"}, {"blur": "motion", "size": (3.0, 5.0)}])
def test_deblur_hands_on_the_blur_that_it_used(options):
    task = Deblur((0.0, 1.0), 2, sigma=0.0, **options)
    example = jax.jit(task.example)(KEY, batch(squares()))
    measurement = example.input.context
    np.testing.assert_allclose(measurement.operator(example.target), measurement.y, atol=1e-6)
    assert float(jnp.abs(example.input.image - example.target).max()) > 0.05


def gain(task, objective, images, state) -> float:
    """How much nearer than its input the model is to the truth it never saw, in dB."""
    example, _, scores = jax.jit(make_predict(task, objective))(state, images, jax.random.key(9))
    before = task.measure(Prediction(example.input.image), example)["psnr"]
    return float((scores["psnr"] - before).mean())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "values"), [("noise2noise", {}), ("noise2self", {"share": 0.1}),
                                              ("noise2self", {"share": 0.1, "fill": "mean"}), ("sure", {"sigma": 0.1})])
def test_denoising_is_learned_without_truth(name, values):
    task = Denoise((0.0, 1.0), 2, "gaussian", (0.1, 0.1))
    learner, images = objective(name, task, network("cnn"), **values), batch(squares(4, 24))
    losses, state = fit(task, learner, images, 120, 1e-2)
    assert np.mean(losses[-10:]) < np.mean(losses[:5])
    assert gain(task, learner, images, state) > 1.5


@pytest.mark.slow
def test_ct_is_learned_from_its_views_alone():
    task = CtRecon(HU, 2, views=12)
    learner, images = objective("ssdu", task, network("modl")), batch(squares(2, 24), HU)
    losses, state = fit(task, learner, images, 160, 5e-3)  # averaging elements leave weaker streaks to remove
    assert np.mean(losses[-30:]) < np.mean(losses[:10])  # the views held out change, and the loss with them
    assert gain(task, learner, images, state) > 3


def test_plug_and_play_uses_any_denoiser():
    task = Inpaint((0.0, 1.0), 2, keep=0.6, sigma=0.2)
    example = jax.jit(task.example)(KEY, batch(squares()))
    A, y = example.input.context.operator, example.input.context.y
    smooth = Blur.gaussian(0.7)
    found = jax.jit(lambda A, y: plug_and_play(A, y, smooth, weight=1.0))(A, y)
    after, before = (task.measure(Prediction(image), example)["psnr"] for image in (found, example.input.image))
    assert float((after - before).min()) > 2


@pytest.mark.slow
def test_mri_is_reconstructed_better_than_zero_filled():
    """Classical methods at once, and a variational network that finds the sensitivities itself."""
    task = MriRecon((0.0, 1.0), 2, acceleration=3.0, coils=4, sigma=0.002)
    images = batch(squares(2, 32))
    example = jax.jit(task.example)(KEY, images)
    score = best_psnr(task, example)
    assert score["cg-sense"] > score["input"] + 3, score
    assert score["l1-wavelet"] > score["input"] + 3, score
    learner = objective("supervised", task, network("varnet", channels=2, sensitivities=True), loss="l2")
    losses, state = fit(task, learner, images, 60, 1e-2)
    assert losses[-1] < 0.15 * losses[0]
    one = jax.tree.map(lambda a: a[0], jax.device_get(jax.jit(make_predict(task, learner))(state, images, KEY)))
    assert task.render(one[0], {"model": one[1]})["model"].shape == (32, 32, 1)


CONFIGS = ["mri_recon", "mri_recon:model=modl,objective=ssdu", "mri_recon:model=unet",
           "ct_recon", "ct_recon:model=primal_dual", "ct_recon:model=unet", "ct_recon:objective=ssdu", "ct_lowdose",
           "ct_lowdose:model=unet,objective=noise2noise", "deblur", "deblur:model=modl", "inpaint"]


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_configs_fit_together(name):
    file, _, arg = name.partition(":")
    config = importlib.import_module(f"configs.{file}").get_config(arg)
    if "count" in config.data.source:
        config.data.source.update(count=6, shape=(32, 32))
    run = assemble(resolve(config, load_splits(config)))
    images = batch(squares(2, 32), run.task.data_range)
    state = jax.eval_shape(lambda batch: init_state(run.task, run.objective, run.optimizers, 0.0, batch, KEY), images)
    _, logs = jax.eval_shape(make_step(run.task, run.objective, run.optimizers, 0.0), state, images)
    assert "model/loss" in logs


@pytest.mark.parametrize(("key", "make"), [
    ("config.data.range", lambda: CtRecon((0.0, 1.0), 2)),
    ("config.data.ndim", lambda: CtRecon(HU, 3)),
    ("config.task.beam", lambda: CtRecon(HU, 2, beam="cone")),
    ("config.task.filter", lambda: CtRecon(HU, 2, filter="hamming")),
    ("config.task", lambda: CtRecon(HU, 2, views=0)),
    ("config.task.oversampling", lambda: CtRecon(HU, 2, oversampling=0)),
    ("config.task.dose", lambda: CtLowDose(HU, 2, dose=(0.5, 2.0))),
    ("config.task.blur", lambda: Deblur(HU, 2, blur="lens")),
    ("config.task.size", lambda: Deblur(HU, 2, size=(3.0, 1.0))),
    ("config.task.missing", lambda: Inpaint(HU, 2, missing="lines")),
    ("config.data.range", lambda: MriRecon((-1.0, 1.0), 2)),
    ("config.task.mask", lambda: MriRecon((0.0, 1.0), 2, mask="spiral")),
    ("config.task.acceleration", lambda: MriRecon((0.0, 1.0), 2, acceleration=0.5)),
    ("config.data", lambda: MriRecon((0.0, 1.0), 2).out_channels(3)),
    ("config.data.source.path", lambda: Kspace().load()),
    ("config.objective.fill", lambda: objective("noise2self", None, None, fill="zero")),
    ("config.objective.share", lambda: objective("ssdu", None, None, share=1.5)),
    ("config.objective.name", lambda: objective("ssdu", Denoise(HU, 2), None)),
    ("config.objective.sigma", lambda: objective("sure", None, None, sigma=0.0)),
])
def test_mistakes_are_one_line(key, make):
    with pytest.raises(UserError, match=rf"^{key}: ") as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["modl", "varnet", "primal_dual"])
def test_networks_with_physics_need_a_measurement(name):
    with pytest.raises(UserError, match=rf"^config\.model\.name: {name} works on raw measurements"):
        jax.eval_shape(network(name).init, KEY, jnp.zeros((1, 16, 16, 1)))


def test_primal_dual_refuses_complex_measurements():
    context = Measurement(None, jnp.zeros((1, 4, 16, 16), complex))
    with pytest.raises(UserError, match=r"^config\.model\.name: primal_dual .* real"):
        jax.eval_shape(lambda x: network("primal_dual").init(KEY, x, context), jnp.zeros((1, 16, 16, 2)))


def test_an_image_measurement_can_not_be_divided():
    task = Deblur((0.0, 1.0), 2)
    with pytest.raises(UserError, match=r"^config\.objective\.name: "):
        objective("ssdu", task, network("unet"))
    with pytest.raises(UserError, match=r"^config\.objective\.name: needs raw measurements"):
        measurement_of(NetworkInput(jnp.zeros((1, 8, 8, 1))).context)


def in_double(tree):
    wide = {np.dtype("float32"): np.float64, np.dtype("complex64"): np.complex128}
    return jax.tree.map(lambda a: jnp.asarray(np.asarray(a).astype(wide.get(np.dtype(a.dtype), a.dtype))), tree)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind", "options"), [
    ("modl", "ct", {"cg_iterations": 3}), ("primal_dual", "ct", {}), ("varnet", "ct", {}),
    ("modl", "mri", {"cg_iterations": 3}), ("varnet", "mri", {"sensitivities": True})])
def test_gradients_of_unrolled_solvers_are_those_of_finite_differences(name, kind, options):
    """In float64, to 1e-4, along a direction in every parameter, in the input and in the measurement."""
    mri = kind == "mri"
    task = MriRecon((0.0, 1.0), 2, acceleration=3.0, coils=3) if mri else CtRecon(HU, 2, views=6)
    example = jax.jit(task.example)(KEY, batch(squares(1, 16), (0.0, 1.0) if mri else HU))
    with jax.enable_x64(True):
        context, image, target = in_double((example.input.context, example.input.image, example.target))
        model = network(name, channels=2 if mri else 1, dtype="float64", **options)
        random = np.random.default_rng(0)
        params = jax.tree.map(lambda p: p + 0.1 * random.normal(size=p.shape),  # what begins at zero matters too
                              in_double(jax.jit(model.init)(KEY, image, context)))

        @jax.jit
        def loss(params, image, y):
            return jnp.square(model.apply(params, image, replace(context, y=y)) - target).sum()

        at = (params, image, context.y)
        gradients = jax.tree.leaves(jax.jit(jax.grad(loss, (0, 1, 2)))(*at))
        leaves, tree = jax.tree.flatten(at)
        for i, (leaf, gradient) in enumerate(zip(leaves, gradients, strict=True)):
            along = random.normal(size=leaf.shape) + (1j * random.normal(size=leaf.shape) if jnp.iscomplexobj(leaf) else 0)
            along = along / np.linalg.norm(along)

            def moved(step, i=i, along=along):
                return float(loss(*jax.tree.unflatten(tree, [x + step * along if j == i else x
                                                             for j, x in enumerate(leaves)])))

            expected = (moved(1e-5) - moved(-1e-5)) / 2e-5
            assert float(jnp.sum(jnp.real(gradient * along))) == pytest.approx(expected, rel=1e-4, abs=1e-7), i
