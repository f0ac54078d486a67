"""Training images changed anew at each visit: what is done to them, from which numbers, and that
nothing else decides about it.
"""

from __future__ import annotations

import dataclasses

import numba
import numpy as np
import pytest
from epochs import only_plain, same_bits, trained
from scipy import stats
from scipy.ndimage import map_coordinates

import fsp_dynamics as fsp
from fsp_dynamics.errors import ConfigurationError
from fsp_dynamics.kernels.team import Team
from fsp_dynamics.learning.optimisers import LearningRates, Sgd
from fsp_dynamics.solvers.equilibrium import Tolerance
from fsp_dynamics.solvers.fixed_point import FixedPointSolver
from fsp_dynamics.training import loop_engine
from fsp_dynamics.training.augmentation import Augmentation, images_at
from fsp_dynamics.training.epoch import train_epoch
from fsp_dynamics.training.evaluation import evaluate
from fsp_dynamics.training.recipe import Learner, Recipe

compiled_only = pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="takes minutes as plain Python")
DIGITS = fsp.load_dataset("digits")
SEED = 2**63 + 12345
MASK = (1 << 64) - 1


@pytest.fixture(autouse=True)
def modulo():
    """As plain Python, NumPy tells of every product modulo 2^64."""
    with np.errstate(over="ignore"):
        yield


def value(key, k):
    """Number k of splitmix64 from that state, in Python's whole numbers."""
    z = (key + (k + 1) * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def drawn(how, place, seed=SEED):
    """(down, right, degrees, mirrored) of the sample at that place, from the first four numbers of
    its stream.
    """
    down, right, angle, mirror = (value(value(seed, place), k) for k in range(4))
    count = 2 * how.shift + 1
    return (
        ((down >> 32) * count >> 32) - how.shift,
        ((right >> 32) * count >> 32) - how.shift,
        how.rotation * (2 * (angle >> 11) / 2**53 - 1),
        (mirror >> 11) / 2**53 < how.flip,
    )


def moved(image, down, right):
    """The image moved by so many pixels, zeros moving in."""
    out = np.roll(image, (down, right), (0, 1))
    out[: max(down, 0)], out[len(out) + min(down, 0) :] = 0, 0
    out[:, : max(right, 0)], out[:, out.shape[1] + min(right, 0) :] = 0, 0
    return out


def turned(image, degrees, down, right):
    """The image on a plane of zeros, turned about its centre, then moved: what
    `scipy.ndimage.rotate` does, but seen through the moved window.
    """
    angle, centre = np.deg2rad(degrees), (np.array(image.shape)[:, None] - 1) / 2
    r, c = np.indices(image.shape).reshape(2, -1)
    seen = np.stack([r - down, c - right]) - centre
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return map_coordinates(image, turn @ seen + centre, order=1, mode="grid-constant").reshape(image.shape)


def twin(image, how, place):
    down, right, degrees, mirrored = drawn(how, place)
    image = image[:, ::-1] if mirrored else image
    return turned(image, degrees, down, right) if how.rotation else moved(image, down, right)


def shown(how, images, samples=None, first=0, seed=SEED, dtype=np.float64, team=None):
    images = images.reshape(len(images), -1)
    samples = np.arange(len(images)) if samples is None else samples
    out, rows = how.shown(images, samples, dtype, first, seed, team)
    return out[rows]


@pytest.mark.parametrize("shape", [(8, 8), (5, 9)])
@pytest.mark.parametrize(
    "how",
    [
        Augmentation(shift=4),
        Augmentation(flip=0.5),
        Augmentation(shift=2, flip=0.5),
        Augmentation(rotation=180.0),
        Augmentation(shift=3, rotation=40.0, flip=0.5),
    ],
    ids=["shift", "flip", "shift-flip", "rotation", "all"],
)
@pytest.mark.parametrize(("dtype", "close"), [(np.float32, 1e-5), (np.float64, 1e-12)])
def test_images_are_mirrored_turned_and_moved_as_the_slow_twin_does(shape, how, dtype, close) -> None:
    how = dataclasses.replace(how, shape=shape)
    images = np.random.default_rng(0).random((60, *shape)).astype(dtype)
    samples = np.random.default_rng(1).permutation(60)
    found = shown(how, images, samples, first=31, dtype=dtype).reshape(60, *shape)
    for i, sample in enumerate(samples):
        np.testing.assert_allclose(found[i], twin(images[sample], how, 31 + i), rtol=0, atol=close)
    if not how.rotation:
        assert {tuple(drawn(how, 31 + i)[:2]) for i in range(60)} >= {(-how.shift, 0)} or not how.shift


@pytest.mark.parametrize("how", [Augmentation(shift=2, flip=0.5), Augmentation(shift=1, rotation=40.0, flip=0.5)])
def test_the_planes_of_an_image_in_colour_are_changed_alike(how) -> None:
    """Each as a grey image at its place; noise is that of each pixel of each plane."""
    how, grey = dataclasses.replace(how, shape=(3, 6, 5)), dataclasses.replace(how, shape=(6, 5))
    images = np.random.default_rng(0).random((40, 3, 6, 5))
    found = shown(how, images, first=7).reshape(40, 3, 30)
    for plane in range(3):
        np.testing.assert_array_equal(found[:, plane], shown(grey, images[:, plane], first=7))
    assert not np.array_equal(found, images.reshape(40, 3, 30))
    noise = shown(dataclasses.replace(how, noise=0.01), images, first=7).reshape(40, 3, 30) - found
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert abs(np.corrcoef(noise[:, one].ravel(), noise[:, other].ravel())[0, 1]) < 0.15
    assert np.abs(noise).mean() == pytest.approx(0.01 * np.sqrt(2 / np.pi), rel=0.2)


def test_quarter_turns_are_exact_enough_to_be_seen() -> None:
    """The twin's sense of turning, beside NumPy's: from 90 degrees of `twin` on, rot90."""
    image = np.random.default_rng(2).random((7, 7))
    np.testing.assert_allclose(turned(image, 90.0, 0, 0), np.rot90(image), atol=1e-12)


def test_moves_are_whole_numbers_each_as_likely_and_both_axes_their_own() -> None:
    """One bright pixel in the middle shows where it went."""
    image = np.zeros((1, 9, 9))
    image[0, 4, 4] = 1
    samples = np.zeros(5000, np.int64)
    found = shown(Augmentation(shift=3), image, samples).reshape(-1, 9, 9)
    places, rows, columns = np.nonzero(found)
    assert np.array_equal(places, np.arange(5000))
    table = np.zeros((7, 7), int)
    np.add.at(table, (rows - 1, columns - 1), 1)
    assert table.min() > 0
    assert stats.chisquare(table.sum(0)).pvalue > 1e-3
    assert stats.chisquare(table.sum(1)).pvalue > 1e-3
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_angles_are_uniform_and_flips_as_probable_as_asked() -> None:
    how = Augmentation(rotation=30.0, flip=0.3)
    angles, flips = zip(*(drawn(how, place)[2:] for place in range(4000)), strict=True)
    assert stats.kstest(angles, "uniform", (-30, 60)).pvalue > 1e-3
    assert np.mean(flips) == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / 4000))


def test_a_flip_with_probability_one_mirrors_every_image_to_the_bit() -> None:
    images = DIGITS.train.images[:50]
    found = shown(Augmentation(flip=1.0), images, dtype=np.float32)
    assert np.array_equal(found.reshape(-1, 8, 8), images.reshape(-1, 8, 8)[:, :, ::-1])


def test_noise_has_its_deviation_and_is_clipped() -> None:
    half, dark = np.full((300, 64), 0.5), np.zeros((300, 64))
    noise = shown(Augmentation(noise=0.1), half) - 0.5
    assert noise.mean() == pytest.approx(0, abs=4 * 0.1 / np.sqrt(noise.size))
    assert noise.std() == pytest.approx(0.1, abs=4 * 0.1 / np.sqrt(2 * noise.size))
    assert stats.kstest(noise.ravel() / 0.1, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(noise[:, 0], noise[:, 1])[0, 1]) < 4 / np.sqrt(300)
    clipped = shown(Augmentation(noise=0.5), dark)
    assert clipped.min() == 0
    assert clipped.max() == 1
    assert np.mean(clipped == 0) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(clipped.size))
    broken = shown(Augmentation(noise=0.5), np.full((1, 4), np.nan))
    assert np.isnan(broken).all(), "what is no number stays none"


EVERYTHING = Augmentation(shift=2, rotation=20.0, noise=0.1, flip=0.4)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_pieces_threads_and_neighbours_do_not_matter(threads) -> None:
    images, order = DIGITS.train.images, np.random.default_rng(5).permutation(100)
    whole = shown(EVERYTHING, images, order, dtype=np.float32)
    with Team(threads) as team:
        pieces = [
            shown(EVERYTHING, images, order[first:last], first, dtype=np.float32, team=team)
            for first, last in ((0, 33), (33, 34), (34, 100))
        ]
    assert np.concatenate(pieces).tobytes() == whole.tobytes()
    assert not np.array_equal(shown(EVERYTHING, images, order, first=1, dtype=np.float32), whole)
    assert not np.array_equal(shown(EVERYTHING, images, order, seed=SEED + 1, dtype=np.float32), whole)


def test_nothing_is_done_or_copied_where_nothing_is_asked() -> None:
    images, samples = DIGITS.train.images, np.array([3, 1])
    found, rows = Augmentation().shown(images, samples, np.float32, 0, None)
    assert found is images
    assert rows is samples
    given, _ = images_at(images, samples, np.float64)
    assert np.array_equal(Augmentation().shown(images, samples, np.float64, 0, None)[0], given)
    before = images.copy()
    shown(EVERYTHING, images, dtype=np.float32)
    assert np.array_equal(images, before)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shift": -1}, "augmentation.shift = -1, expected a whole number"),
        ({"shift": 1.5}, "augmentation.shift = 1.5, expected a whole number"),
        ({"rotation": 181.0}, "augmentation.rotation = 181.0, expected an angle from 0 to 180"),
        ({"noise": -0.1}, "augmentation.noise = -0.1, expected a standard deviation"),
        ({"noise": float("inf")}, "augmentation.noise = inf"),
        ({"flip": 1.1}, "augmentation.flip = 1.1, expected a probability"),
        ({"flip": float("nan")}, "augmentation.flip = nan"),
    ],
)
def test_impossible_values_are_refused(values, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Augmentation(**values)


@pytest.mark.parametrize(
    ("how", "pixels", "message"),
    [
        (Augmentation(shift=1), 12, "augmentation.shift = 1, but 12 numbers in one row are no picture"),
        (Augmentation(rotation=5.0), 12, "augmentation.rotation = 5.0, but 12 numbers"),
        (Augmentation(flip=0.5, shape=(1, 16)), 16, "augmentation.flip = 0.5, but 16 numbers"),
        (Augmentation(shift=1, shape=(3, 5)), 16, r"augmentation.shape = \(3, 5\), expected \(height, width\)"),
        (Augmentation(shift=1, shape=(3, 2, 2)), 16, r"of 16 pixels, or \(channels, height, width\)"),
        (Augmentation(shift=2, shape=(3, 2, 9)), 54, r"augmentation.shift = 2, expected less .* 2 x 9 pixels"),
        (Augmentation(shift=4), 16, "augmentation.shift = 4, expected less than the smaller side of images of 4 x 4"),
        (Augmentation(shift=3, shape=(3, 5)), 15, "less than the smaller side of images of 3 x 5"),
    ],
)
def test_what_cannot_be_done_to_the_images_is_refused_before_learning(how, pixels, message) -> None:
    network = fsp.loop_network([pixels, 5, 10], rng=0)
    with pytest.raises(ConfigurationError, match=message):
        Learner.start(network, recipe(how), 0)


def test_noise_alone_needs_no_picture() -> None:
    Learner.start(fsp.loop_network([12, 5, 10], rng=0), recipe(Augmentation(noise=0.1)), 0)
    images = np.random.default_rng(0).random((5, 12))
    assert shown(Augmentation(noise=1e-9), images) == pytest.approx(images, abs=1e-7)


def recipe(how, solver=None, tolerance=1e-6, **changes):
    sgd = Sgd(LearningRates(9.0, (4.0,), 0.2), output_step=0.1)
    return Recipe(sgd, solver or FixedPointSolver(), Tolerance(tolerance), augmentation=how, batch=16, **changes)


def loop(dtype=np.float64):
    return fsp.loop_network([64, 12, 10], loop_scale=0.5, rng=0, dtype=dtype)


def tied(dtype=np.float64):
    return fsp.reciprocal_network([64, 12, 10], rng=0, dtype=dtype)


@compiled_only
@pytest.mark.parametrize("make", [loop, tied])
@pytest.mark.parametrize("optimiser", [{}, {"momentum": 0.5}])
def test_every_engine_learns_from_the_same_images(make, optimiser, monkeypatch) -> None:
    """Beside the plain engine, and beside an epoch over images that were changed beforehand."""
    network, data = make(), DIGITS.train.limit(70)
    how = recipe(EVERYTHING, tolerance=1e-12)
    rates = dataclasses.replace(how.optimiser, rates=LearningRates(0.5, (0.3,), 0.05 if make is loop else 0.0))
    how = dataclasses.replace(how, optimiser=dataclasses.replace(rates, **optimiser))
    solvers = [None]
    if make is loop:
        pytest.importorskip("torch")
        solvers.append(fsp.make_solver("torch_fixed_point", device="cpu"))
    found = [trained(network, dataclasses.replace(how, solver=s or how.solver), data)[0] for s in solvers]
    only_plain(monkeypatch)
    found.append(trained(network, how, data)[0])

    rng, plain = np.random.default_rng(3), dataclasses.replace(how, augmentation=Augmentation())
    slow = Learner.start(network, plain, rng)
    for _ in range(2):
        order = np.random.default_rng()
        order.bit_generator.state = rng.bit_generator.state
        samples, seed = order.permutation(70), int(order.integers(1 << 64, dtype=np.uint64))
        images = np.empty((70, 64))
        images[samples] = shown(EVERYTHING, data.images, samples, seed=seed)
        train_epoch(slow, Pictures(images, data.labels), plain)
        rng.bit_generator.state = order.bit_generator.state
    for learner in found:
        for name, w in slow.network.parameters().items():
            np.testing.assert_allclose(learner.network.parameters()[name], w, rtol=0, atol=1e-8, err_msg=name)


@compiled_only
@pytest.mark.parametrize("make", [loop, tied])
def test_neither_pauses_nor_threads_of_an_epoch_change_a_bit(make, monkeypatch) -> None:
    network, data, how = make(np.float32), DIGITS.train.limit(70), recipe(EVERYTHING, tolerance=1e-4)
    if make is tied:
        how = dataclasses.replace(how, optimiser=Sgd(LearningRates(9.0, (4.0,))))
    whole, _ = trained(network, how, data, threads=1)
    monkeypatch.setattr(loop_engine, "CHUNK", 32)
    for threads in (1, 2):
        assert same_bits(trained(network, how, data, threads=threads)[0], whole)


@dataclasses.dataclass
class Pictures:
    images: np.ndarray
    labels: np.ndarray


@compiled_only
def test_moved_digits_are_learned_and_every_sample_converges() -> None:
    """Warm starts are of other images then, and still only starts. Test errors over eight seeds:
    24.6 +- 3.3 %, where 90 is chance (6.4 +- 0.5 without moves, which are large in 8 x 8 pixels).
    """
    network, data = fsp.loop_network([64, 40, 10], loop_scale=0.5, rng=0), DIGITS.train.limit(1000)
    how = recipe(Augmentation(shift=1), tolerance=1e-4)
    learner, reports = trained(network, how, data, epochs=8)
    assert all(report.unconverged == 0 for report in reports)
    assert reports[-1].passes_free < 1 + reports[0].passes_free
    assert evaluate(learner.network, DIGITS.test, how).error < 45
