"""GANs as they are trained: who learns in which step, options, runs that resume, and what can be said of them."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest

from minigen import cli, grad, no_grad
from minigen.data import load
from minigen.models import MODELS
from minigen.models.gan import LOSSES, DCGANConfig, GAN2dConfig, dcgan, mlp_gan
from minigen.random import Generator
from minigen.training import figures
from minigen.training.config import RunConfig
from minigen.training.run import load_run, train

SMALL = DCGANConfig(channels=4, latent=6, batch_size=8)
POINTS = GAN2dConfig(hidden=8, batch_size=8)


def built(name="dcgan", shape=(8, 8, 1), config=None, **options):
    config = dataclasses.replace(config or (SMALL if name == "dcgan" else POINTS), **options)
    return MODELS[name].build(shape, config, Generator(0))


def moved(before, after):
    return {name.split(".")[0] for name in before if (before[name] != after[name]).any()}


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (12, 20, 3)])
@pytest.mark.parametrize("norm", ["spectral", "batch", "none"])
def test_shapes(shape, norm):
    model, rng = dcgan(shape, dataclasses.replace(SMALL, norm=norm), Generator(0)), Generator(1)
    assert model.generate(3, rng).shape == (3, *shape)
    logits = model.discriminator(model.generate(3, rng))
    assert (logits.shape, logits.dtype) == ((3,), np.float32)
    samples = model.sample(3, rng)
    assert (samples.shape, samples.dtype) == ((3, *shape), np.float32)
    assert samples.min() >= 0
    assert samples.max() <= 1


def test_images_are_seen_from_minus_1_to_1():
    x = load("digits", "train").x[:8]
    seen = built().preprocess(x, Generator(0))
    assert (seen.min(), seen.max(), seen.dtype) == (-1, 1, np.float32)
    points = Generator(0).normal((3, 2))
    assert built("gan2d", (2,)).preprocess(points, Generator(0)) is points


@pytest.mark.parametrize("name", ["gan2d", "dcgan"])
@pytest.mark.parametrize("loss", LOSSES)
def test_each_network_learns_in_its_own_step_only(name, loss):
    """With two discriminator steps for each of the generator: the first one leaves the generator's parameters alone.

    The last bias, the same for all logits, has no gradient where losses are differences of logits.
    """
    shape = (8, 8, 1) if name == "dcgan" else (2,)
    model, rng = built(name, shape, loss=loss, discriminator_steps=2), Generator(1)
    optimizers = model.optimizers()
    assert list(optimizers) == ["generator", "discriminator"]
    states = [model.state_dict()]
    for _ in range(2):
        model.train_step(rng.uniform((8, *shape)), rng, optimizers)
        states.append(model.state_dict())
    names = {name for name, _ in model.named_parameters()}
    first, second = (moved({n: a[n] for n in names}, b) for a, b in pairwise(states))
    assert first == {"discriminator"}
    assert second == {"discriminator", "generator"}
    unmoved = [n for n in names if (states[0][n] == states[2][n]).all()]
    last = list(dict(model.discriminator.named_parameters()))[-1]
    assert unmoved == ([f"discriminator.{last}"] if loss in ("hinge", "wgan-gp") else [])


def test_what_lies_in_grad_does_not_matter():
    """`grad` gives each step the gradients that it asked for: nothing leaks through `.grad` from the other's step."""
    states = []
    for junk in (0.0, 1000.0):
        model, rng = built(), Generator(1)
        optimizers = model.optimizers()
        for _ in range(2):
            for p in model.parameters():
                p.grad.data[...] = junk
            model.train_step(rng.uniform((8, 8, 8, 1)), rng, optimizers)
        states.append(model.state_dict())
    for name, array in states[0].items():
        np.testing.assert_array_equal(array, states[1][name], err_msg=name)


def test_real_samples_are_new_in_every_discriminator_step():
    """`discriminator_steps` counts batches: the generator moves once in as many training steps."""
    model, rng = built("gan2d", (2,), discriminator_steps=3), Generator(1)
    optimizers = model.optimizers()
    for _ in range(7):
        model.train_step(rng.normal((8, 2)), rng, optimizers)
    assert (optimizers["discriminator"].steps, optimizers["generator"].steps) == (7, 2)


@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_reported(loss):
    model = built("gan2d", (2,), loss=loss, r1=0.1)
    terms = model.train_step(Generator(0).normal((8, 2)), Generator(1), model.optimizers())
    assert set(terms) == {"discriminator", "generator", "r1"} | ({"penalty"} if loss == "wgan-gp" else set())
    assert set(model.curves) <= set(terms)


def test_the_mark_is_what_a_discriminator_that_cannot_tell_gets():
    """A logit of 0 for all; for the hinge, any value between its two corners."""
    zero = mlp_gan((2,), POINTS, Generator(0)).discriminator(Generator(0).normal((4, 2))) * 0
    for name, game in LOSSES.items():
        assert abs(game.discriminator(zero, zero).item() - game.balance) < 1e-6, name


def test_gradients_of_every_parameter_with_both_penalties():
    """Along random directions, in float64, against differences: the second derivatives are all there."""
    model = built("dcgan", (8, 8, 1), loss="wgan-gp", r1=2.0).astype("float64")
    x, fake = (Generator(seed).uniform((4, 8, 8, 1), -1, 1, dtype=np.float64) for seed in (1, 2))
    loss = lambda: model.discriminator_loss(x, fake, Generator(3)).total
    parameters = model.discriminator.parameters()
    for p, g in zip(parameters, grad(loss(), parameters), strict=True):
        direction = Generator(4).normal(p.shape, dtype=np.float64)
        own, ends = p.data.copy(), []
        for sign in (1, -1):
            p.data[...] = own + sign * 1e-6 * direction
            ends.append(loss().item())
        p.data[...] = own
        slope = (ends[0] - ends[1]) / 2e-6
        assert abs((g.data * direction).sum() - slope) < 1e-5 * max(1, abs(slope))


def test_same_seed_same_samples_whatever_else_was_drawn():
    model = built().eval()
    np.testing.assert_array_equal(model.sample(5, Generator(3)), model.sample(5, Generator(3)))
    np.testing.assert_allclose(model.sample(5, Generator(3))[:2], model.sample(2, Generator(3)), atol=1e-6)


# ---- runs


def config_of(name, data, steps, **options):
    settings = {"evaluate_every": 1000, "log_every": 2, "threads": 1}
    return RunConfig(name, data, MODELS[name].config(**options), steps=steps, **settings)


@pytest.mark.parametrize(
    ("name", "data", "options"),
    [
        ("dcgan", "digits", {"channels": 4, "batch_size": 8, "discriminator_steps": 2}),
        ("dcgan", "digits", {"channels": 4, "batch_size": 8, "loss": "non-saturating"}),
        ("gan2d", "ring-8", {"hidden": 8, "batch_size": 8, "loss": "wgan-gp", "norm": "spectral"}),
    ],
)
def test_a_run_resumes_bit_for_bit(name, data, options, tmp_path):
    """Both networks, both optimisers, the vectors of the spectral norm, the running averages, and the average."""
    whole = train(config_of(name, data, 6, **options), tmp_path / "whole", quiet=True)
    train(config_of(name, data, 3, **options), tmp_path / "parts", quiet=True)
    parts = train(config_of(name, data, 6, **options), tmp_path / "parts", resume=True, quiet=True)
    state = whole.model.state_dict()
    for key, array in state.items():
        np.testing.assert_array_equal(array, parts.model.state_dict()[key], err_msg=key)
    for key in ("generator", "discriminator"):
        for kept, array in whole.optimizers[key].state.items():
            np.testing.assert_array_equal(array, parts.optimizers[key].state[kept], err_msg=f"{key}.{kept}")
    np.testing.assert_array_equal(whole.ema.average, parts.ema.average)
    if whole.model.config.discriminator_norm == "spectral":
        assert any(key.endswith(".norm.u") for key in state)
    run = load_run(tmp_path / "parts")
    with run.averaged(), whole.averaged():
        np.testing.assert_array_equal(run.model.eval().sample(2, Generator(0)), whole.model.eval().sample(2, Generator(0)))


def test_the_average_is_that_of_the_generator(tmp_path):
    run = train(config_of("gan2d", "ring-8", 3, hidden=8, batch_size=8), tmp_path / "run", quiet=True)
    judge = {name: a for name, a in run.model.state_dict().items() if name.startswith("discriminator")}
    before = run.model.state_dict()
    with run.averaged():
        after = run.model.state_dict()
    assert moved(before, after) == {"generator"}
    assert judge
    assert run.ema.average.size == run.model.generator.num_parameters()


@pytest.mark.slow
def test_averaged_parameters_have_nearly_the_statistics_that_evaluation_uses(tmp_path):
    """Running averages of batch norm are those of the moving parameters. With the same window as the average of the parameters
    they come near to its own: samples in evaluation are near to those with statistics of the batch itself. With the usual
    momentum of 0.1 they are 0.018 away."""
    run = train(config_of("dcgan", "digits", 1300, channels=8, batch_size=32), tmp_path / "run", quiet=True)
    with run.averaged(), no_grad():
        settled = run.model.eval().sample(500, Generator(0))
        batch = run.model.train().sample(500, Generator(0))
    assert np.abs(settled - batch).mean() < 0.01


def test_held_out_scores_and_figures(tmp_path):
    """On points with known modes three numbers together; elsewhere none. The curves are those of the two losses."""
    run = train(config_of("gan2d", "ring-8", 4, hidden=8, batch_size=8), tmp_path / "ring", quiet=True)
    assert set(figures.scores(run)) == {"high_quality_share", "modes_hit", "reverse_kl"}
    assert (tmp_path / "ring/figures/curves.png").stat().st_size > 5000
    assert sorted(p.name for p in (tmp_path / "ring/figures").iterdir()) == ["curves.png", "samples.png"]
    run = train(config_of("gan2d", "moons", 2, hidden=8, batch_size=8), tmp_path / "moons", quiet=True)
    assert figures.scores(run) == {}


def test_evaluate_says_that_there_is_no_likelihood(tmp_path, capsys):
    for name, data, options in (("gan2d", "ring-8", {"hidden": 8}), ("dcgan", "digits", {"channels": 4})):
        train(config_of(name, data, 2, batch_size=8, **options), tmp_path / data, quiet=True)
        assert cli.main(["evaluate", str(tmp_path / data)]) == 0
        said = capsys.readouterr().out
        assert "no likelihood: a GAN draws samples, and gives no density of any" in said
        assert "NLL" not in said
        assert ("high-quality share" in said) == (data == "ring-8")
        assert ("5 sets of samples" in said) == (data == "ring-8")


def test_losses_are_not_told_in_nats(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("minigen.training.progress.PLAIN_SECONDS", 0.0)
    train(config_of("gan2d", "moons", 3, hidden=8, batch_size=8), tmp_path / "run")
    said = capsys.readouterr().err
    assert "discriminator 1." in said
    assert "nats" not in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("dcgan --data moons", "gan2d takes points"),
        ("gan2d --data digits", "dcgan takes images"),
        ("gan2d --data moons --norm batch", "--norm none"),
        ("dcgan --loss wgan-gp --norm batch", "batch norm mixes the samples"),
        ("dcgan --loss non-saturating --r1 1", "add --norm none or --norm spectral"),
        ("dcgan --loss wasserstein", "known are minimax, non-saturating, hinge, wgan-gp"),
        ("gan2d --data moons --discriminator-steps 0", "at least 1"),
        ("gan2d --data moons --beta1 1", "beta1"),
    ],
)
def test_refusals(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", *arguments.split(), "--steps", "1"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_the_family_has_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for data, name in (("moons", "gan2d"), ("digits", "dcgan")):
        assert cli.main(["train", "gan", "--data", data, "--steps", "1", "--quiet"]) == 0
        assert (tmp_path / "runs" / f"{name}-{data}" / "figures" / "samples.png").exists()
