"""Autoregressive models: built by name, trained, saved and resumed by the program's own loop, sampled, completed, refused.

That they are what they claim to be is proved in tests/truths/test_autoregressive_truths.py.
"""

import math

import numpy as np
import pytest

from minigen import Tensor, grad, no_grad
from minigen.cli import main
from minigen.data import TOYS
from minigen.data import load as load_data
from minigen.models import MODELS
from minigen.models.autoregressive import draw_in_order, pick
from minigen.optim import Adam
from minigen.random import Generator
from minigen.training.config import RunConfig
from minigen.training.figures import FIGURES, estimate, scores
from minigen.training.run import load_run, train
from minigen.truths import cross_entropy

TINY = {
    "made": {"hidden": 20},
    "pixelcnn": {"channels": 6, "blocks": 1},
    "gated-pixelcnn": {"channels": 5, "layers": 1},
    "pixelrnn": {"channels": 4, "layers": 1},
}
FAST = ("pixelcnn", "gated-pixelcnn", "pixelrnn")


def build(name, shape=(5, 6, 1), seed=0, **options):
    return MODELS[name].build(shape, MODELS[name].config(**TINY.get(name, {}), **options), Generator(seed))


# ---- as runs


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("made", {}),
        ("pixelcnn", {"classes": 10}),
        ("gated-pixelcnn", {"pixels": "grey", "components": 2}),
        ("pixelrnn", {}),
        ("made2d", {"hidden": 8}),
    ],
)
def test_trains_resumes_bit_for_bit_samples_and_evaluates(name, options, tmp_path):
    data = "moons" if name == "made2d" else "digits"
    options = MODELS[name].config(**TINY.get(name, {}), **options, batch_size=16, ema=0.9)
    config = lambda steps: RunConfig(
        model=name, data=data, options=options, steps=steps, checkpoint_every=2, evaluate_every=4, threads=1
    )
    whole = train(config(4), tmp_path / "whole", quiet=True)
    train(config(2), tmp_path / "parts", quiet=True)
    resumed = train(config(4), tmp_path / "parts", resume=True, quiet=True)
    for key, value in whole.model.state_dict().items():
        np.testing.assert_array_equal(resumed.model.state_dict()[key], value, err_msg=key)

    run = load_run(tmp_path / "whole")
    samples = run.model.sample(5, Generator(0))
    assert samples.shape == (5, *run.test.x.shape[1:])
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(run.model.sample(5, Generator(0)), samples)
    nll = estimate(run, run.test.x[:50], "exact", run.model.estimators(1)["exact"])
    told = {"made2d": "floor 1.0076", "gated-pixelcnn": "histogram of each pixel"}.get(name, "independent Bernoullis")
    assert told in str(nll)
    assert "NLL ≤" not in str(nll)
    assert set(scores(run)) == {"test_log_prob"}
    assert (FIGURES["completions"](run, tmp_path) is None) == (name == "made2d")


def test_what_each_can_do():
    for name in (*TINY, "made2d"):
        assert MODELS[name].cls.capabilities() == ["sample", "log_prob"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("pixelcnn --data digits --levels 256", "digits are images of 17 grey levels"),
        ("pixelcnn --data digits --classes 3", "digits has 10 classes; give as many, or none"),
        ("pixelcnn --data digits --pixels colour", "--pixels: unknown name 'colour'; known are binary, grey"),
        ("made --data moons", "made models images of one channel, (H, W, 1), not data of shape (2,): made2d takes points"),
        ("made2d --data digits", "made2d needs points of two dimensions"),
        ("gated-pixelcnn --data shapes --layers -1", "--layers"),
    ],
)
def test_refuses_in_one_line(line, told, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *line.split()]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert told in error
    assert not list(tmp_path.iterdir())


def test_refuses_colours_and_levels_that_are_not_given():
    with pytest.raises(ValueError, match=r"pixelrnn models images of one channel.*an order of the channels"):
        build("pixelrnn", (32, 32, 3))
    with pytest.raises(ValueError, match="must know how many levels"):
        build("pixelcnn", pixels="grey")


# ---- what they compute


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("options", [{"classes": 2}, {"pixels": "grey", "levels": 5, "components": 2}])
def test_the_gradient_of_the_likelihood_of_every_parameter(name, options):
    """Along a random direction, weighted by a random cotangent, against central differences."""
    model, rng = build(name, (3, 3, 1), **options).astype("float64"), np.random.default_rng(0)
    for p in model.parameters():  # biases that are 0 would put what sees nothing but padding on the corner of a ReLU
        p.data[...] += 0.1 * rng.normal(size=p.shape)
    x, y = rng.integers(0, model.pixels.levels, (2, 3, 3, 1)).astype(np.float64), rng.integers(0, 2, 2)
    y, weight = y if model.classes else None, rng.normal(size=2)
    parameters = model.parameters()
    found = grad(model.log_prob(x, y), parameters, grad_outputs=Tensor(weight))
    for p, g in zip(parameters, found, strict=True):
        direction, values, h = rng.normal(size=p.shape), [], 1e-6
        for sign in (1, -1):
            p.data[...] += sign * h * direction
            with no_grad():
                values.append(float(model.log_prob(x, y).data @ weight))
            p.data[...] -= sign * h * direction
        assert (values[0] - values[1]) / (2 * h) == pytest.approx(float((g.data * direction).sum()), rel=1e-5, abs=1e-7)


def test_the_network_of_the_benchmark_can_be_had():
    """7 × 7 of mask A, seven gated blocks of 64 channels, two 1 × 1 layers: 553,537 weights of whole kernels, here without the
    rows below the middle."""
    entry = MODELS["pixelcnn"]
    model = entry.build((28, 28, 1), entry.config(channels=64, blocks=7, gates=True, head=64, positions=False), Generator(0))
    assert model.num_parameters() == 553_537 - 64 * 3 * 7 - 7 * 64 * 128 * 3


def test_a_model_that_knows_labels_uses_them_and_adds_over_them():
    model = build("pixelcnn", classes=3)
    x = Generator(0).bernoulli(np.full((4, 5, 6, 1), 0.5, np.float32))
    with no_grad():
        each = np.stack([model.log_prob(x, np.full(4, c)).data for c in range(3)])
        whole = model.log_prob(x).data
    assert np.ptp(each, axis=0).min() > 1e-3
    np.testing.assert_allclose(np.exp(whole.astype(float)), np.exp(each.astype(float)).mean(axis=0), rtol=1e-4)
    same, other = (model.sample(30, Generator(1), y=np.full(30, c)) for c in (0, 2))
    np.testing.assert_array_equal(model.sample(30, Generator(1), y=np.zeros(30, int)), same)
    assert (same != other).any()


def test_pixels_are_drawn_by_their_distribution_function():
    below = np.array([[0.2, 0.5], [0.2, 0.5], [0.2, 0.5], [0.0, 1.0]])
    np.testing.assert_array_equal(pick(below, np.array([0.19, 0.2, 0.9, 0.3])), [0, 1, 2, 1])


@pytest.mark.parametrize("name", TINY)
def test_completion_keeps_what_is_known_and_draws_the_rest_given_it(name):
    model, rng = build(name, pixels="grey", levels=5, components=2), np.random.default_rng(0)
    x = (rng.integers(0, 5, (40, 5, 6, 1)) / 4).astype(np.float32)
    known = np.zeros((5, 6), bool)
    known[:2], known[4, 3] = True, True
    drawn = model.complete(x, known, Generator(0))
    np.testing.assert_array_equal(drawn[:, known], x[:, known])
    assert (drawn[:, ~known] != x[:, ~known]).mean() > 0.5
    np.testing.assert_array_equal(model.complete(x, np.ones((5, 6), bool), Generator(0)), x)
    model.draw = draw_in_order
    np.testing.assert_array_equal(model.complete(x, known, Generator(0)), drawn)
    with pytest.raises(ValueError, match=r"known \(5, 5\) must be \(H, W\) = \(5, 6\)"):
        model.complete(x, known[:, :5], Generator(0))


def test_completion_follows_what_is_given():
    """A model of images whose two halves are equal goes on with the half that it is given."""
    model, rng = build("pixelcnn", (2, 4, 1)), Generator(0)
    adam = Adam(model.parameters(), 0.02)
    for _ in range(120):
        half = rng.bernoulli(np.full((32, 1, 4, 1), 0.5, np.float32))
        loss = model.loss(np.concatenate([half, half], axis=1), rng).total
        adam.zero_grad()
        loss.backward()
        adam.step()
    given = np.concatenate([half, np.zeros_like(half)], axis=1)
    known = np.array([[True] * 4, [False] * 4])
    drawn = model.complete(given, known, Generator(1))
    assert (drawn[:, 1] == drawn[:, 0]).mean() > 0.98
    assert loss.item() < 4 * math.log(2) + 0.3  # the entropy of half an image


def test_a_mixture_of_coordinates_is_above_the_entropy_of_the_data():
    model, rng = build("made2d", (2,), hidden=16), Generator(0)
    adam = Adam(model.parameters(), 0.01)
    for _ in range(120):
        loss = model.loss(TOYS["moons"].sample(256, rng), rng).total
        adam.zero_grad()
        loss.backward()
        adam.step()
    model.eval()

    def log_prob(x):
        with no_grad():
            return model.log_prob(x.astype(np.float32)).data

    excess = cross_entropy(TOYS["moons"], log_prob, 0.05) - TOYS["moons"].entropy
    assert 0 < excess < 0.15
    samples = model.sample(4000, Generator(1))
    assert -log_prob(samples).mean() == pytest.approx(-log_prob(TOYS["moons"].sample(4000, Generator(2))).mean(), abs=0.15)


# ---- at full size


@pytest.mark.slow
@pytest.mark.parametrize("name", FAST)
def test_full_size_samples_are_those_by_the_definition(name):
    """28 x 28, the default model after some training: 16 images at each of three seeds, bit for bit."""
    entry, rng = MODELS[name], Generator(0)
    model = entry.build((28, 28, 1), entry.config(), rng)
    digits = load_data("digits", "train").x.repeat(3, axis=1).repeat(3, axis=2)  # 24 x 24
    x = np.pad(digits, ((0, 0), (2, 2), (2, 2), (0, 0)))
    optimizers = model.optimizers()
    for step in range(30):
        model.train_step(x[16 * step : 16 * step + 16], rng, optimizers)
    for seed in range(3):
        fast = model.sample(16, Generator(seed))
        assert 0.02 < fast.mean() < 0.9
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(model, "draw", draw_in_order)
            np.testing.assert_array_equal(model.sample(16, Generator(seed)), fast)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAST)
def test_the_cached_sampler_is_fifty_times_faster(name):
    from benchmarks.sampling import measure

    model = MODELS[name].build((28, 28, 1), MODELS[name].config(), Generator(0))
    measure(model, 64, 1)  # compiles
    slow, fast = measure(model, 64, 14)
    assert slow > 50 * fast
