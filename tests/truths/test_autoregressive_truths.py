"""Truths ar-sum, causal, ar-sampler and logistic-mixture, and the mistakes that they must catch, each re-created and caught."""

import itertools
import math

import numpy as np
import pytest

from minigen import Tensor, no_grad, ops
from minigen.models import MODELS, LogisticMixture
from minigen.models import autoregressive as base
from minigen.models import cached_sampling as cached
from minigen.models import gated_pixelcnn as gated
from minigen.models import made as made_file
from minigen.models import pixelcnn as plain
from minigen.models import pixelrnn as rnn
from minigen.nn import Conv2d
from minigen.random import Generator
from minigen.truths import (
    all_images,
    chi_square,
    composed,
    level_masses,
    seen_from,
    sensitivity,
    sum_over_images,
    total_probability,
)

IMAGES = {
    "made": {"hidden": 40},
    "pixelcnn": {"channels": 6, "blocks": 2},
    "gated-pixelcnn": {"channels": 5, "layers": 2},
    "pixelrnn": {"channels": 4, "layers": 2},
}
RASTER = np.tril(np.ones((12, 12), bool), -1)  # what a pixel of 3 x 4 may depend on


def rough(model, seed=0, dtype="float64"):
    """With random numbers in all parameters, so that every path counts."""
    rng = np.random.default_rng(seed)
    model.astype(dtype).eval()
    for p in model.parameters():
        fan_in = math.prod(p.shape[:-1]) if p.ndim > 1 else 10
        p.data[...] = rng.normal(size=p.shape) * 1.5 / math.sqrt(fan_in)
    return model


def build(name, shape=(3, 4, 1), seed=0, dtype="float64", **options):
    entry = MODELS[name]
    return rough(entry.build(shape, entry.config(**IMAGES[name], **options), Generator(0)), seed, dtype)


def dependence(model, draws=4):
    """Over some random inputs, the largest |d output_i / d input_j|."""
    rng = np.random.default_rng(1)
    each = [sensitivity(model.network, rng.normal(size=model.data_shape)) for _ in range(draws)]
    return np.max(each, axis=0)


# ---- causal


def test_the_jacobian_of_a_known_network_is_read_off_row_by_row():
    w = np.arange(1.0, 17).reshape(4, 4)  # output_i = Σ_j w_ji x_j, and a second output of twice as much
    network = lambda x: ops.stack([x @ w, 2 * (x @ w)], axis=-1)
    np.testing.assert_allclose(sensitivity(network, np.ones(4)), 3 * w.T)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("options", [{}, {"pixels": "grey", "levels": 8, "components": 2}])
def test_an_output_depends_on_all_earlier_pixels_in_reach_and_on_no_other(name, options):
    found = dependence(build(name, **options))
    reach = np.array([claimed(name, (3, 4), at).ravel() for at in np.ndindex(3, 4)])  # (12, 12)
    assert not reach[~RASTER].any()
    np.testing.assert_array_equal(found > 0, reach)


MASK_A7 = np.arange(49).reshape(7, 7) < 24  # of 7 x 7, all that comes before the middle
MASK_B = np.array([[1, 1, 1], [1, 1, 0], [0, 0, 0]], bool)
ROWS_UP = np.array([[1, 1, 1], [1, 1, 1], [0, 0, 0]], bool)
LEFT = np.array([[0, 0, 0], [1, 1, 0], [0, 0, 0]], bool)


def claimed(name, shape, at, depth=2):
    """Pixels that the output at a position is to see, from nothing but the shapes of kernels."""
    if name == "pixelcnn":
        return composed([MASK_A7, *depth * [MASK_B]], shape, at)
    if name == "gated-pixelcnn":  # the horizontal stack alone, and after as many vertical layers as there are before it
        rows, left = np.arange(49).reshape(7, 7) < 21, MASK_A7.copy()
        left[:3] = False
        stacks = [[left, *depth * [LEFT]], *([rows, *k * [ROWS_UP], *(depth - k) * [LEFT]] for k in range(depth + 1))]
        return np.any([composed(kernels, shape, at) for kernels in stacks], axis=0)
    if name == "pixelrnn":  # a triangle without end: one column more to each side with each row up, and one to the left
        up, column = np.indices((2 * shape[0] + 1, 2 * shape[1] + 1)) - np.array(shape)[:, None, None]
        triangle = (up <= 0) & (column <= -up) & (column >= up - 1)
        return composed([MASK_A7, *depth * [triangle]], shape, at)
    return np.arange(math.prod(shape)).reshape(shape) < np.ravel_multi_index(at, shape)  # made: all earlier ones


@pytest.mark.parametrize(
    ("name", "options"), [("pixelcnn", {}), ("pixelcnn", {"gates": True}), ("gated-pixelcnn", {}), ("pixelrnn", {})]
)
@pytest.mark.parametrize("at", [(8, 7), (5, 1), (2, 12)])
def test_the_receptive_field_is_the_one_that_the_kernels_claim(name, options, at):
    model = build(name, (10, 15, 1), **options)
    np.testing.assert_array_equal(seen_from(model.network, (10, 15), at, np.random.default_rng(0)), claimed(name, (10, 15), at))


def test_the_blind_spot_of_the_plain_network_which_the_gated_one_has_not():
    """Within the rows and columns that the kernels reach, 5 up and 5 to each side for two blocks of 3 x 3 after 7 x 7."""
    at, box = (8, 7), np.zeros((10, 15), bool)
    box[3:8, 2:13] = True
    plain_one, gated_one = (
        seen_from(build(name, (10, 15, 1)).network, (10, 15), at, np.random.default_rng(0))
        for name in ("pixelcnn", "gated-pixelcnn")
    )
    spot = [(y - at[0], x - at[1]) for y, x in np.argwhere(box & ~plain_one)]
    assert spot == [(-2, 5), (-1, 4), (-1, 5)]  # above, and to the right: no path of masked kernels leads there
    assert not (box & ~gated_one).any()


# ---- ar-sum


@pytest.mark.parametrize("name", IMAGES)
def test_the_probabilities_of_all_images_add_up_to_one(name):
    assert sum_over_images(build(name, classes=2).log_prob, (3, 4, 1)) == pytest.approx(1, abs=1e-9)
    grey = build(name, (2, 3, 1), pixels="grey", levels=3, components=2)
    assert sum_over_images(grey.log_prob, (2, 3, 1), levels=3) == pytest.approx(1, abs=1e-9)


def test_all_images_are_counted_like_numbers():
    images = all_images((2, 1), 3)
    np.testing.assert_array_equal(images[:, :, 0], list(itertools.product(range(3), repeat=2)))


def test_the_density_of_points_integrates_to_one_and_goes_coordinate_by_coordinate():
    entry, rng = MODELS["made2d"], np.random.default_rng(1)
    model = entry.build((2,), entry.config(hidden=8, components=3), Generator(0)).astype("float64").eval()
    for p in model.parameters():
        p.data[...] += 0.2 * rng.normal(size=p.shape)

    def log_prob(x):
        with no_grad():
            return model.log_prob(x).data

    assert total_probability(log_prob, ((-25, 25), (-25, 25)), 0.1) == pytest.approx(1, abs=1e-6)
    outputs = lambda x: ops.permute_dims(model.network(x).reshape(len(x), -1, 2), (0, 2, 1))  # (N, 2, 3 K)
    found = sensitivity(outputs, np.array([0.3, -0.7]))
    assert found[1, 0] > 0
    assert found[0, 0] == found[0, 1] == found[1, 1] == 0


# ---- logistic-mixture


def outputs(n, components, seed=0):
    rng = np.random.default_rng(seed)
    weight, mu = rng.normal(size=(n, components)), rng.normal(scale=1.5, size=(n, components))  # some beyond the edges
    return np.concatenate([weight, mu, rng.uniform(-9, 2, (n, components))], axis=1)


@pytest.mark.parametrize("levels", [2, 3, 17, 256])
def test_the_masses_of_all_levels_add_up_to_one(levels):
    pixels, output = LogisticMixture(levels, 4), outputs(60, 4)
    masses = level_masses(pixels.log_levels, output, levels)
    np.testing.assert_allclose(masses.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(masses.cumsum(axis=1)[:, :-1], pixels.below(output), atol=1e-12)


def test_the_mass_of_a_level_is_that_of_its_interval():
    """Against a quadrature of the logistic density, and in logarithms where a mass is far below 1e-300."""
    pixels = LogisticMixture(17, 1)
    output = np.array([[0.0, 0.21, -1.3]])
    v = np.linspace(0.4375 - 0.0625, 0.4375 + 0.0625, 20_001)  # the interval of level 11.5 * 2 ... level 11 + 1/2
    level = 11.5
    z = (v - 0.21) * math.exp(1.3)
    density = math.exp(1.3) * np.exp(-z) / (1 + np.exp(-z)) ** 2
    middle = 0.5 * (density[1:] + density[:-1]).sum() * (v[1] - v[0])
    with no_grad():
        found = pixels.log_levels(np.array([level]), Tensor(output)).data
        far = pixels.log_levels(np.array([0.0]), Tensor(np.array([[0.0, 1.0, -7.0]]))).data
    np.testing.assert_allclose(np.exp(found), middle, rtol=1e-7)
    np.testing.assert_allclose(far, (-1 + 1 / 16 - 1) * math.exp(7), rtol=1e-6)  # log σ(t) = t far to the left


# ---- ar-sampler


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("by", ["the default", "the definition"])
def test_samples_come_as_often_as_their_probability_says(name, by):
    model = build(name, (3, 3, 1), dtype="float32")
    if by == "the definition":
        model.draw = base.draw_in_order
    samples = model.sample(3000, Generator(3))
    assert abs(chi_square(samples, build(name, (3, 3, 1)).log_prob)) < 4


def test_grey_samples_come_as_often_as_their_probability_says():
    options = {"pixels": "grey", "levels": 3, "components": 2}
    model = build("pixelcnn", (2, 2, 1), dtype="float32", **options)
    samples = np.rint(2 * model.sample(3000, Generator(3)))
    assert abs(chi_square(samples, build("pixelcnn", (2, 2, 1), **options).log_prob, levels=3)) < 4


CONVOLUTIONAL = ("pixelcnn", "gated-pixelcnn", "pixelrnn")
OPTIONS = ({}, {"classes": 3}, {"pixels": "grey", "levels": 16})
CASES = [*itertools.product(CONVOLUTIONAL, OPTIONS), ("pixelcnn", {"gates": True, "positions": True})]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_the_cached_sampler_draws_the_same_samples(name, options):
    model = build(name, (7, 6, 1), dtype="float32", **options)
    for seed in range(2):
        cached_ones = model.sample(20, Generator(seed))
        model.draw = base.draw_in_order
        np.testing.assert_array_equal(model.sample(20, Generator(seed)), cached_ones)
        model.draw = cached.draw_from_cache
    assert cached_ones.std() > 0.05


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_cached_outputs_differ_from_whole_passes_by_rounding_only(name):
    """By far less than CLOSE, at which a draw is decided by a whole pass."""
    model = build(name, (8, 7, 1), dtype="float32")
    x = Generator(0).bernoulli(np.full((10, 8, 7, 1), 0.5, np.float32))
    with no_grad():
        whole = model.network(Tensor(model.pixels.inputs(x))).data.reshape(10, 56)
        cache, each = cached.Cache(10, 7, np.zeros(1)), []
        for i in range(56):
            cache.move(*divmod(i, 7))
            each.append(model.network(Tensor(cache.unknown), None, cache).data[:, 0, 0, 0])
            cache.tell(model.pixels.inputs(x.reshape(10, 56)[:, i]))
    difference = model.pixels.below(whole) - model.pixels.below(np.stack(each, axis=1))
    assert 0 < np.abs(difference).max() < cached.CLOSE / 10


@pytest.mark.parametrize("name", CONVOLUTIONAL)
def test_a_whole_pass_gives_an_image_the_same_bits_in_every_batch(name):
    """So the definition may be asked about single images."""
    model = build(name, (8, 7, 1), dtype="float32")
    x = Generator(0).bernoulli(np.full((37, 8, 7, 1), 0.5, np.float32))
    with no_grad():
        whole = model.network(Tensor(x)).data
        for some in ([0], [36], [3, 17, 30], list(range(5, 21))):
            np.testing.assert_array_equal(model.network(Tensor(x[some])).data, whole[some])


def test_draws_close_to_a_threshold_are_decided_by_the_definition(monkeypatch):
    """With outputs of the cache that are off by an error below CLOSE, the samples stay the same; if nothing is close, not."""
    model = build("pixelcnn", (8, 7, 1), dtype="float32")
    want = model.sample(400, Generator(0))
    convolve = cached.Cache.convolve
    off = lambda self, layer, x: convolve(self, layer, x) * (1 + 1e-3)
    monkeypatch.setattr(cached.Cache, "convolve", off)
    assert (model.sample(400, Generator(0)) != want).any()
    monkeypatch.setattr(cached, "CLOSE", 0.1)
    np.testing.assert_array_equal(model.sample(400, Generator(0)), want)


# ---- mutants


def leaks(name, **options):
    found = dependence(build(name, **options), draws=3)
    return found[~RASTER].max() > 0


def wrong_total(name, **options):
    return abs(sum_over_images(build(name, **options).log_prob, (3, 4, 1)) - 1) > 1e-6


def wrong_samples(name):
    samples = build(name, (3, 3, 1), dtype="float32").sample(3000, Generator(3))
    return abs(chi_square(samples, build(name, (3, 3, 1)).log_prob)) > 8


def mutant_mask_b_first(patch):
    make = plain.CausalConv.__init__
    patch.setattr(plain.CausalConv, "__init__", lambda self, *args, own, rng: make(self, *args, own=True, rng=rng))


def mutant_right_neighbour(patch):
    make = plain.CausalConv.__init__

    def init(self, c_in, c_out, above, side, own, *, rng):
        make(self, c_in, c_out, above, side, own, rng=rng)
        if above:
            self.mask.data[above, side + own : side + own + 1] = 1

    patch.setattr(plain.CausalConv, "__init__", init)


def mutant_rows_shifted(patch):
    def forward(self, x, cache=None):
        y = ops.conv2d(x, self.weight * self.mask, self.bias, padding=(self.above, self.side))
        return y[:, self.above :, : x.shape[2]]

    patch.setattr(plain.CausalConv, "forward", forward)


def mutant_image_not_shifted_down(patch):
    patch.setattr(gated, "down", lambda x: x)


def mutant_state_of_the_same_row(patch):
    def forward(self, x, cache=None):
        gates = self.from_input(x, None)
        h, _ = self.step(gates, Tensor(np.zeros((*x.shape[:3], self.c), x.dtype)))
        return self.step(gates + self.from_state(h), h)[0]

    patch.setattr(rnn.RowLSTM, "forward", forward)


def mutant_input_of_a_row_lstm_not_masked(patch):
    class Open(Conv2d):
        def __init__(self, c_in, c_out, above, side, own, *, rng):
            super().__init__(c_in, c_out, (1, 3), padding=(0, 1), rng=rng)

        def forward(self, x, cache=None):
            return super().forward(x)

    closed = plain.CausalConv
    patch.setattr(rnn, "CausalConv", lambda *args, own, rng: (Open if own else closed)(*args, own=own, rng=rng))


def mutant_made_degrees_from_zero(patch):
    degrees = made_file.hidden_degrees
    patch.setattr(made_file, "hidden_degrees", lambda d, hidden: degrees(d, hidden) - 1)


def mutant_made_diagonal(patch):
    """Connections that let a unit see one value too many: the mask of the direct ones is not strict."""
    layer = made_file.MaskedLinear

    def wide(mask, **options):
        mask = mask | np.eye(*mask.shape, dtype=bool) if mask.shape[0] == mask.shape[1] else mask
        return layer(mask, **options)

    patch.setattr(made_file, "MaskedLinear", wide)


LEAKS = {
    mutant_mask_b_first: "pixelcnn",
    mutant_right_neighbour: "pixelcnn",
    mutant_rows_shifted: "pixelcnn",
    mutant_image_not_shifted_down: "gated-pixelcnn",
    mutant_state_of_the_same_row: "pixelrnn",
    mutant_input_of_a_row_lstm_not_masked: "pixelrnn",
    mutant_made_diagonal: "made",
}


@pytest.mark.parametrize("mutant", LEAKS)
def test_causal_and_ar_sum_catch_a_leak(mutant, monkeypatch):
    name = LEAKS[mutant]
    assert not leaks(name)
    assert not wrong_total(name)
    mutant(monkeypatch)
    assert leaks(name)
    assert wrong_total(name)


def test_causal_catches_a_made_that_sees_too_little(monkeypatch):
    """Masks that are too strict leave a proper distribution: only the claimed receptive field tells it from the right one."""
    mutant_made_degrees_from_zero(monkeypatch)
    monkeypatch.setattr(made_file.ImageNetwork, "forward", without_direct)
    found = dependence(build("made"))
    assert not wrong_total("made")
    assert ((found > 0) != RASTER).any()


def without_direct(self, x, y=None):
    flat = x.reshape(len(x), -1)
    return self.leave(ops.relu(self.enter(flat))).reshape(*x.shape[:3], -1)


def test_ar_sum_catches_an_average_of_logarithms(monkeypatch):
    """Adding over labels inside the logarithm is a mixture; averaging outside of it is no distribution."""
    log_prob = base.PixelByPixel.log_prob

    def averaged(self, x, y=None):
        if y is not None:
            return log_prob(self, x, y)
        return ops.stack([log_prob(self, x, np.full(len(x), c)) for c in range(self.classes)]).mean(axis=0)

    assert not wrong_total("pixelcnn", classes=2)
    monkeypatch.setattr(base.PixelByPixel, "log_prob", averaged)
    assert wrong_total("pixelcnn", classes=2)


def mutant_no_edges(self, k, output):
    """Edge intervals as wide as the others: the mass beyond them is lost."""
    return self.real(np.clip(k, 1e-3, self.levels - 1 - 1e-3), output)


def mutant_wide_intervals(self, k, output):
    """1/L in place of 1/(L-1) as half of an interval."""
    self.levels, levels = self.levels + 1, self.levels
    try:
        return self.real(k, output)
    finally:
        self.levels = levels


def mutant_one_open_edge(self, k, output):
    return self.real(np.minimum(k, self.levels - 1 - 1e-3), output)


@pytest.mark.parametrize("mutant", [mutant_no_edges, mutant_wide_intervals, mutant_one_open_edge])
def test_logistic_mixture_catches(mutant, monkeypatch):
    monkeypatch.setattr(LogisticMixture, "real", LogisticMixture.log_levels, raising=False)
    monkeypatch.setattr(LogisticMixture, "log_levels", mutant)
    masses = level_masses(LogisticMixture(17, 4).log_levels, outputs(60, 4), 17)
    assert np.abs(masses.sum(axis=1) - 1).max() > 1e-3


def mutant_black_for_white(patch):
    patch.setattr(base, "pick", lambda below, u: (u[:, None] < below).sum(axis=1))
    patch.setattr(cached, "pick", base.pick)


def mutant_forgets_what_was_drawn(patch):
    patch.setattr(cached.Cache, "tell", lambda self, value: None)


def mutant_rows_do_not_move_up(patch):
    convolve = cached.Cache.convolve

    def stuck(self, layer, x):
        memory = self.layers.get(layer)
        y = convolve(self, layer, x)
        if memory is not None and self.column == 0:
            memory.seen[:-1] = 0
            memory.from_above = self._from_above(layer, memory)
            return Tensor(memory.from_above[0][:, None, None])
        return y

    patch.setattr(cached.Cache, "convolve", stuck)


@pytest.mark.parametrize("mutant", [mutant_black_for_white, mutant_forgets_what_was_drawn, mutant_rows_do_not_move_up])
def test_ar_sampler_catches(mutant, monkeypatch):
    assert not wrong_samples("pixelcnn")
    mutant(monkeypatch)
    assert wrong_samples("pixelcnn")
