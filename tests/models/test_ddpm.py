"""The diffusion models as they are trained: networks, labels, guidance, the bound on images, and runs that resume."""

import dataclasses

import numpy as np
import pytest
from scipy.special import ndtr

from minigen import Tensor, no_grad
from minigen.data import load
from minigen.models import MODELS
from minigen.models.ddpm import DDPM, DDPM2dConfig, UNetDDPMConfig, mlp_ddpm, unet_ddpm
from minigen.models.noise import PREDICTIONS
from minigen.models.unet import UNet, fourier_features, time_embedding
from minigen.optim import EMA
from minigen.random import Generator
from minigen.training.config import ConfigError, RunConfig
from minigen.training.figures import estimate, scores
from minigen.training.run import load_run, train
from minigen.truths import GaussianData

SMALL = UNetDDPMConfig(base=8, timesteps=20, sampling_steps=4, batch_size=8)


def test_training_comes_near_to_the_least_loss_and_the_least_bound():
    """Truth ddpm-gaussian, trained: points of N(0, 0.25 I). The loss and the bound come near to the least."""
    config = DDPM2dConfig(base=32, timesteps=50, batch_size=256, lr=5e-3, prediction="v", ema=0.99)
    model, rng = mlp_ddpm((2,), config, Generator(0)), Generator(1)
    truth = GaussianData(0.25, model.schedule.alpha_bar)
    optimizers = model.optimizers()
    ema = EMA(optimizers["adam"].flat, config.ema)
    for _ in range(500):
        model.train_step(rng.normal((256, 2), std=0.5), rng, optimizers)
        ema.update()
    x = rng.normal((4000, 2), std=0.5)
    with ema.applied(), no_grad():
        loss = np.mean([model.loss(rng.normal((4000, 2), std=0.5), rng).total.item() for _ in range(20)])
        bound = -model.log_prob_bound(x, 51, rng).mean()
    with ema.applied():
        exact = -model.log_prob(x[:1000], rng, 50).mean()
    least = 2 * truth.least_bound() + 2 * truth.gaps(model.sigma2).sum()
    v = 0.25 * truth.alpha_bar + 1 - truth.alpha_bar
    assert 0.99 < loss / (0.25 / v[1:]).mean() < 1.03  # the least error of v is s²/Var[x_t]
    assert least - 0.05 < bound < least + 0.15
    assert abs(exact - 2 * 0.5 * np.log(2 * np.pi * np.e * 0.25)) < 0.08


def test_unet_starts_as_nothing_and_keeps_the_shape():
    for height, width, channels in ((8, 8, 1), (28, 28, 1), (12, 20, 3)):
        net = UNet(channels, 8, 0, Generator(0))
        x = Generator(1).normal((2, height, width, channels))
        with no_grad():
            y = net(Tensor(x), np.array([0.1, 0.9], np.float32)).data
        assert y.shape == x.shape
        assert y.dtype == np.float32
        assert (y == 0).all()


def test_unet_sees_everything():
    """Once it is trained a little, every output depends on every pixel, on the time, and on the label."""
    net, rng = UNet(1, 8, 3, Generator(0)), Generator(1)
    for p in net.parameters():
        p.data[...] += rng.normal(p.shape, std=0.05)
    x, u, y = rng.normal((1, 8, 8, 1)), np.array([0.5], np.float32), np.array([1])
    at = Tensor(x, requires_grad=True)
    net(at, u, y)[0, 0, 0, 0].backward()
    assert (at.grad.data != 0).all()
    with no_grad():
        out = net(Tensor(x), u, y).data
        assert (net(Tensor(x), u + 0.1, y).data != out).any()
        assert (net(Tensor(x), u, y + 1).data != out).any()


def test_every_parameter_of_the_networks_learns():
    fine = dataclasses.replace(SMALL, fourier=True, levels=17)
    for name, shape, config in (
        ("ddpm", (8, 8, 1), SMALL),
        ("ddpm", (8, 8, 1), fine),
        ("ddpm2d", (2,), DDPM2dConfig(base=8, batch_size=8)),
    ):
        config = dataclasses.replace(config, classes=3)
        model, rng = MODELS[name].build(shape, config, Generator(0)), Generator(1)
        before = model.state_dict()
        optimizers = model.optimizers()
        for _ in range(4):  # what stands behind a zero weight learns one step later
            model.train_step(rng.uniform((8, *shape)), rng, optimizers, y=np.arange(8) % 3)
        unmoved = [k for k, v in model.state_dict().items() if (v == before[k]).all()]
        assert unmoved == []


@pytest.mark.parametrize("levels", [17, 256])
def test_fourier_features_are_the_same_at_all_grey_levels_and_tell_on_which_side_of_one_a_pixel_is(levels):
    x = (2 * np.arange(levels) / (levels - 1) - 1).reshape(1, 1, levels, 1)
    parity = (-1.0) ** np.arange(levels)  # the longer period takes two levels
    sin, cos, sin_2, cos_2 = (f.data.reshape(-1) for f in fourier_features(Tensor(x), levels))
    np.testing.assert_allclose([sin, sin_2], 0, atol=1e-10)
    np.testing.assert_allclose(cos, 1)
    np.testing.assert_allclose(cos_2, parity)
    above = fourier_features(Tensor(x + 0.2 / (levels - 1)), levels)[0].data  # a tenth of the way to the next level
    np.testing.assert_allclose(above, np.sin(0.2 * np.pi))


def test_time_embedding_tells_all_steps_apart():
    u = np.arange(1, 1001, dtype=np.float32) / 1000
    emb = time_embedding(u, 32)
    assert emb.shape == (1000, 32)
    distance = ((emb[:, None] - emb[None]) ** 2).sum(axis=2) + 10 * np.eye(1000)
    assert distance.min() > 0.1


def test_times_are_spread_evenly_and_each_is_uniform():
    model, rng = mlp_ddpm((2,), DDPM2dConfig(base=8, timesteps=10), Generator(0)), Generator(1)
    for n in (10, 30):
        assert (np.bincount(model.spread_times(n, rng), minlength=11)[1:] == n // 10).all()
    first = np.array([model.spread_times(4, rng)[0] for _ in range(2000)])
    counts = np.bincount(first, minlength=11)
    assert counts[0] == 0
    assert (np.abs(counts[1:] - 200) < 5 * np.sqrt(2000 * 0.1 * 0.9)).all()
    assert all(len(set(model.spread_times(4, rng))) == 4 for _ in range(20))


def test_times_even_in_their_logarithm():
    model, rng = mlp_ddpm((2,), DDPM2dConfig(base=8, timesteps=10, times="log"), Generator(0)), Generator(1)
    counts = np.bincount(model.spread_times(100_000, rng), minlength=11)
    t = np.arange(1, 11)
    assert counts[0] == 0
    assert (np.abs(counts[1:] - 100_000 * np.log((t + 1) / t) / np.log(11)) <= 2).all()
    first = np.array([model.spread_times(4, rng)[0] for _ in range(2000)])
    assert abs((first == 1).mean() - np.log(2) / np.log(11)) < 5 * np.sqrt(0.29 * 0.71 / 2000)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_samples_are_images(prediction):
    for sampler in ("ancestral", "ddim"):
        config = dataclasses.replace(SMALL, prediction=prediction, sampler=sampler)
        samples = unet_ddpm((8, 8, 1), config, Generator(0)).sample(3, Generator(1))
        assert samples.shape == (3, 8, 8, 1)
        assert samples.min() >= 0
        assert samples.max() <= 1


def by_label(x, u, y):
    """A network that says its label, and -1 where it has none."""
    value = np.where(y == 3, -1.0, y).astype(x.dtype)
    return Tensor(np.broadcast_to(value[:, None], x.shape))


@pytest.mark.parametrize(("guidance", "said"), [(0.0, [0, 1, 2]), (1.0, [1, 3, 5]), (2.0, [2, 5, 8])])
def test_guidance(guidance, said):
    """(1 + w) network(y) - w network(no label)"""
    model = DDPM(by_label, (1,), DDPM2dConfig(classes=3, guidance=guidance))
    x = np.zeros((3, 1))
    assert model.output(x, 5, np.arange(3))[:, 0].tolist() == said
    assert model.output(x, 5)[:, 0].tolist() == [-1, -1, -1]


def test_training_hides_some_labels():
    seen = []

    def network(x, u, y):
        seen.append(y)
        return Tensor(x.copy())

    model = DDPM(network, (1,), DDPM2dConfig(classes=3, drop_label=0.2))
    model.loss(np.zeros((20_000, 1)), Generator(0), y=np.zeros(20_000, np.int64))
    assert set(seen[0]) == {0, 3}
    assert abs((seen[0] == 3).mean() - 0.2) < 4 * np.sqrt(0.16 / 20_000)


def test_labels_steer_the_samples():
    """Two classes at ±1: asked for one, a trained model gives that one."""
    config = DDPM2dConfig(base=32, timesteps=30, batch_size=128, lr=5e-3, classes=2, guidance=1.0, ema=0)
    model, rng = mlp_ddpm((2,), config, Generator(0)), Generator(1)
    optimizers = model.optimizers()
    for _ in range(300):
        y = rng.integers(0, 2, (128,))
        model.train_step((2 * y[:, None] - 1 + rng.normal((128, 2), std=0.3)).astype(np.float32), rng, optimizers, y=y)
    y = np.arange(200) % 2
    samples = model.sample(200, rng, y)
    assert ((samples[:, 0] > 0) == (y == 1)).mean() > 0.97


@pytest.mark.parametrize("levels", [17, 256])
def test_bound_on_images_is_that_of_their_grey_levels(levels):
    """A model that knows the image pays for x_T, and for what of N(x, σ_1²) lies outside of each level's interval."""
    x = 2 * load("digits", "test").x[:4].astype(np.float64) - 1
    model = DDPM(lambda x_t, u, y: Tensor(x), (8, 8, 1), dataclasses.replace(SMALL, prediction="x0", variance="small"))
    model.levels = levels
    left = model.schedule.alpha_bar[-1]
    prior = 0.5 * (left * (x**2).sum(axis=(1, 2, 3)) - 64 * (left + np.log1p(-left)))  # L_T
    within = ndtr(1 / (levels - 1) / np.sqrt(model.sigma2[1]))  # up to the upper edge
    inside = np.where(np.abs(x) == 1, np.log(within), np.log(2 * within - 1)).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(model.log_prob_bound(x, 21, Generator(0)), inside - prior, rtol=1e-9)


def test_refusals():
    with pytest.raises(ValueError, match="takes points"):
        unet_ddpm((2,), SMALL, Generator(0))
    with pytest.raises(ValueError, match="that 4 divides"):
        unet_ddpm((10, 8, 1), SMALL, Generator(0))
    with pytest.raises(ValueError, match="how many grey levels"):
        unet_ddpm((8, 8, 1), dataclasses.replace(SMALL, fourier=True), Generator(0))
    with pytest.raises(ValueError, match="takes images"):
        mlp_ddpm((8, 8, 1), DDPM2dConfig(), Generator(0))
    with pytest.raises(ValueError, match="base=10"):
        unet_ddpm((8, 8, 1), dataclasses.replace(SMALL, base=10), Generator(0))
    with pytest.raises(ValueError, match="sample in"):
        unet_ddpm((8, 8, 1), dataclasses.replace(SMALL, sampling_steps=21), Generator(0))


def config_of(model, data, steps, **options):
    return RunConfig(model, data, MODELS[model].config(**options), steps=steps, evaluate_every=1000, log_every=2, threads=1)


def test_a_run_resumes_bit_for_bit(tmp_path):
    options = {"base": 8, "timesteps": 20, "sampling_steps": 4, "batch_size": 8, "classes": 10}
    whole = train(config_of("ddpm", "digits", 6, **options), tmp_path / "whole", quiet=True)
    train(config_of("ddpm", "digits", 3, **options), tmp_path / "parts", quiet=True)
    parts = train(config_of("ddpm", "digits", 6, **options), tmp_path / "parts", resume=True, quiet=True)
    for name, array in whole.model.state_dict().items():
        np.testing.assert_array_equal(array, parts.model.state_dict()[name], err_msg=name)
    assert whole.model.levels == 17
    run = load_run(tmp_path / "parts")
    np.testing.assert_array_equal(run.model.sample(2, Generator(0)), whole.model.sample(2, Generator(0)))


def test_classes_have_to_be_those_of_the_data(tmp_path):
    for data, message in (("moons", "moons has no classes"), ("8gaussians", "no classes")):
        with pytest.raises(ConfigError, match=message):
            train(config_of("ddpm2d", data, 1, classes=2), tmp_path / data, quiet=True)
    with pytest.raises(ConfigError, match="digits has 10 classes"):
        train(config_of("ddpm", "digits", 1, classes=4, base=8), tmp_path / "digits", quiet=True)


def test_grey_levels_have_to_be_those_of_the_data(tmp_path):
    for model, data, message in (("ddpm", "digits", "digits are images of 17"), ("ddpm2d", "moons", "moons are points")):
        with pytest.raises(ConfigError, match=f"--levels 256: {message}"):
            train(config_of(model, data, 1, levels=256), tmp_path / data, quiet=True)


@pytest.mark.parametrize(("model", "data"), [("ddpm", "digits"), ("ddpm2d", "moons")])
def test_estimates_say_how_they_were_made(model, data, tmp_path):
    """The cheapest, the bound, is the score of held-out data in training; each has the floor or the baseline beside it."""
    options = {"base": 8, "timesteps": 10, "sampling_steps": 4, "batch_size": 8}
    run = train(config_of(model, data, 2, **options), tmp_path / data, quiet=True)
    assert set(scores(run)) == {"test_bound"}
    own = run.model.estimators(5)
    x = run.test.x[:20]
    text = {name: str(estimate(run, x, name, log_prob)) for name, log_prob in own.items()}
    if data == "moons":
        assert list(text) == ["exact, probability-flow ODE", "variational bound, 11 terms"]
        assert "≤" not in text["exact, probability-flow ODE"]
        assert all("floor 1.0076" in t for t in text.values())
    else:
        assert list(text) == ["variational bound, 5 terms"]
        assert all(part in text["variational bound, 5 terms"] for part in ("17 grey levels", "bits/dim", "histogram of each"))
    assert text[list(text)[-1]].startswith("NLL ≤ ")
