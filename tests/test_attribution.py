"""Attribution against what is known of linear networks, of brute force, and of a network that reads one block of pixels."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from medjax.infer.attribution import boxes, grad_cam, gradient, integrated_gradients, occlusion
from medjax.measures.attribution import curve, effective_radius
from medjax.models.activations import recorded, shifted
from medjax.models.classifier import Classifier
from medjax.types import UserError

SIZE = 12
WHOLE = (slice(0, SIZE), slice(0, SIZE))
IMAGE = jnp.asarray(np.random.default_rng(0).uniform(0.2, 1, (1, SIZE, SIZE, 2)), jnp.float32)
BLOCK = np.zeros((SIZE, SIZE), bool)
BLOCK[3:6, 7:10] = True


def smooth(x: Array) -> Array:
    """A score that is far from linear."""
    weights = jnp.asarray(np.random.default_rng(1).normal(0, 1, (SIZE * SIZE * 2, 8)), jnp.float32)
    return jnp.tanh(x.reshape(-1) @ weights).sum() + jnp.square(x).sum()


def block(x: Array) -> Array:
    """A score that reads one block of pixels."""
    return jnp.square(x[0, 3:6, 7:10]).sum()


@pytest.fixture(scope="module")
def classifier() -> tuple[nn.Module, dict, Callable[[Array], Array]]:
    """A small network, and the logit of its second class."""
    network = Classifier(2, 3, convs=(1, 1), widths=(4, 6), dense=(5,), norm="none", dropout=0.0)
    variables = jax.jit(network.init)(jax.random.key(0), IMAGE)
    return network, variables, lambda x: network.apply(variables, x)[0, 1]


def test_integrated_gradients_add_up_to_the_difference(classifier):
    _, _, logit = classifier
    for score, tolerance in ((smooth, 2e-4), (logit, 0.02)):  # a network of pieces that are linear is integrated less well
        baseline = jnp.full_like(IMAGE, 0.1)
        found = integrated_gradients(score, IMAGE, baseline, 48)
        assert found.shape == (SIZE, SIZE)
        assert found.sum() == pytest.approx(float(score(IMAGE) - score(baseline)), rel=tolerance)


def test_integrated_gradients_of_a_square_are_exact():
    """Of the sum of squares each voxel's part is its own square, less the baseline's."""
    found = integrated_gradients(block, IMAGE, jnp.zeros_like(IMAGE), 4)
    np.testing.assert_allclose(found, np.where(BLOCK, np.square(IMAGE[0]).sum(-1), 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradient(block, IMAGE), np.where(BLOCK, 2 * IMAGE[0].sum(-1), 0), rtol=1e-6)


def test_occlusion_is_brute_force():
    baseline, size = jnp.full_like(IMAGE, 0.5), (4, 5)
    found = occlusion(smooth, IMAGE, baseline, size, WHOLE)
    total, count = np.zeros((SIZE, SIZE)), np.zeros((SIZE, SIZE))
    for row in range(0, SIZE - 4 + 1, 2):
        for column in [*range(0, SIZE - 5 + 1, 2), 8]:  # the last box ends with the image
            changed = np.array(IMAGE)
            changed[:, row:row + 4, column:column + 5] = 0.5
            drop = float(smooth(IMAGE)) - float(smooth(jnp.asarray(changed)))
            total[row:row + 4, column:column + 5] += drop
            count[row:row + 4, column:column + 5] += 1
    np.testing.assert_allclose(found, total / count, rtol=1e-3, atol=1e-4)
    covered = np.zeros((SIZE, SIZE), int)
    for box in boxes((SIZE, SIZE), (4, 5), (slice(2, 9), slice(0, 7))):
        covered[box] += 1
    assert (covered[2:9, :7] > 0).all()
    assert covered.sum() == covered[2:9, :7].sum()


def test_grad_cam_of_a_linear_head_is_that_by_hand(classifier):
    """The mean over the last activations, then a linear layer: weights are those of the layer over the number of voxels."""
    network = Classifier(2, 3, convs=(1, 1), widths=(4, 6), dense=(), norm="none", dropout=0.0)
    variables = jax.jit(network.init)(jax.random.key(1), IMAGE)
    variables["params"]["head"]["Dense_0"]["kernel"] *= 100
    found = grad_cam(lambda x: network.apply(variables, x)[0, 2], IMAGE)
    _, seen = network.apply(variables, IMAGE, capture_intermediates=True, mutable=["intermediates"])
    last = np.asarray(seen["intermediates"]["ConvNormAct_1"]["__call__"][0])[0]
    weights = np.asarray(variables["params"]["head"]["Dense_0"]["kernel"])[:, 2] / (last.shape[0] * last.shape[1])
    by_hand = np.maximum((last * weights).sum(-1), 0)
    assert by_hand.max() > 0
    np.testing.assert_allclose(found, jax.image.resize(by_hand, (SIZE, SIZE), "linear"), rtol=1e-4, atol=1e-7)
    with pytest.raises(UserError, match="no activations on a grid"):
        grad_cam(lambda x: x.sum(), IMAGE)


def test_activations_are_listed_and_shifted(classifier):
    network, variables, logit = classifier
    with recorded() as found:
        jax.eval_shape(logit, IMAGE)
    assert [one.place for one in found] == list(range(len(found)))
    assert found[-1].module == "Classifier"
    assert found[-1].shape == (1, 3)
    shift = jnp.asarray([[0.0, 2.5, 0.0]])
    with shifted(found[-1].place, shift) as seen:
        moved = logit(IMAGE)
    assert float(moved) == pytest.approx(float(logit(IMAGE)) + 2.5)
    np.testing.assert_allclose(seen[0], network.apply(variables, IMAGE))


def test_curves_of_a_network_that_reads_one_block():
    """The right map leaves nothing once its voxels are deleted, and the whole score once they are inserted."""
    image, baseline, scope = np.asarray(IMAGE[0]), np.zeros((SIZE, SIZE, 2), np.float32), np.ones((SIZE, SIZE), bool)
    shares = np.linspace(0, 1, 145)

    def score(x: np.ndarray) -> float:
        return float(block(jnp.asarray(x)[None]))

    parts = np.square(image[3:6, 7:10]).sum(-1)
    right = BLOCK * np.square(image).sum(-1)
    deletion, insertion = (curve(score, image, baseline, right, scope, insert, shares) for insert in (False, True))
    # By hand: the voxels of the block go first, the largest before the others, one at a step; then nothing is left.
    left = 1 - np.concatenate([[0], np.cumsum(np.sort(parts, axis=None)[::-1])]) / parts.sum()
    np.testing.assert_allclose(deletion.left[:10], left, atol=1e-5)
    np.testing.assert_allclose(deletion.left[10:], 0, atol=1e-6)
    np.testing.assert_allclose(insertion.left, 1 - deletion.left, atol=1e-5)
    wrong = curve(score, image, baseline, -right, scope, False, shares)
    assert deletion.area < 0.05
    assert wrong.area > 0.95
    random = [curve(score, image, baseline, np.random.default_rng(s).random((SIZE, SIZE)), scope).area for s in range(20)]
    assert np.mean(random) == pytest.approx(0.5, abs=0.08)
    inside = curve(score, image, baseline, right, BLOCK, True, np.linspace(0, 1, 10))
    np.testing.assert_allclose(inside.left, 1 - left, atol=1e-5)


def test_how_far_a_network_looks():
    """Of a Gaussian in 2-D the share of energy within r is 1 - exp(-r^2 / (2 s^2))."""
    y, x = np.indices((81, 81)) - 40
    energy = np.exp(-(np.square(2 * y) + np.square(x)) / (2 * 10.0**2))  # pixels of 2 x 1 mm
    for share in (0.5, 0.95):
        found = effective_radius(energy, (40, 40), (2.0, 1.0), share)
        assert found == pytest.approx(10 * np.sqrt(-2 * np.log(1 - share)), rel=0.05)
