"""The energy-based models as they are trained: networks, samplers, chains that persist, the guard, and runs that resume.

That their chains, their partition function and their gradient are right is proved by the truths, in
tests/truths/test_energy_truths.py.
"""

import dataclasses
import gc
import math
import re
import tracemalloc

import numpy as np
import pytest

from minigen import Tensor, cli, ops
from minigen.models import MODELS, Diverged
from minigen.models.ebm import EBM, EBM2dConfig, EBMConfig, conv_ebm, mlp_ebm
from minigen.models.langevin import energy_and_gradient, igebm, mala, temperature, ula
from minigen.models.quadrature import log_partition
from minigen.random import Generator
from minigen.training import figures
from minigen.training.checkpoint import Checkpoints
from minigen.training.run import load_run

SMALL = EBMConfig(hidden=4, batch_size=8, chains=16, chain_steps=3, sampling_steps=4)
SMALL2D = EBM2dConfig(hidden=16, batch_size=32, chains=48, chain_steps=3)
WORKLOAD = {  # the update that is common in teaching code, whose chains are no sampler
    "sampler": "igebm", "reference": "none", "data_noise": 0.0, "penalty": 0.1, "clip_norm": 0.1,
    "restart": 1.0, "lr": 1e-4, "chain_steps": 30, "hidden": 32, "batch_size": 64, "chains": 64,
}  # fmt: skip
CLI = ["--batch-size", "32", "--chains", "48", "--chain-steps", "3", "--hidden", "16", "--quiet", "--threads", "1"]


@pytest.fixture
def bare(monkeypatch):
    """Runs draw no figures, which would take most of their time."""
    monkeypatch.setattr(figures, "FIGURES", {})


def points(n=32, seed=3):
    return 2 * Generator(seed).normal((n, 2)) + np.float32(1)


def trained(model, x, steps=3, seed=1):
    rng, optimizers = Generator(seed), model.optimizers()
    return [model.train_step(x, rng, optimizers) for _ in range(steps)]


@pytest.mark.parametrize(("side", "layers", "parameters"), [(28, 4, 492_641), (14, 3, 230_369), (8, 2, 107_361)])
def test_networks_for_images(side, layers, parameters):
    model = conv_ebm((side, side, 1), EBMConfig(), Generator(0))
    assert model.num_parameters() == parameters
    assert sum(p.ndim == 4 for p in model.parameters()) == layers
    e = model.energy(Generator(1).uniform((3, side, side, 1)))
    assert (e.shape, e.dtype) == ((3,), np.float32)


def test_the_workload_of_the_benchmarks():
    """Noise, clamp, clipped gradient, clamp, thirty times; then the two means, and a penalty on both squares."""
    model = conv_ebm((28, 28, 1), EBMConfig(**WORKLOAD | {"chain_steps": 2, "batch_size": 4, "chains": 4}), Generator(0))
    twin = conv_ebm((28, 28, 1), model.config, Generator(0))
    x = Generator(1).uniform((4, 28, 28, 1))
    (terms,) = trained(model, x, 1, seed=2)
    fake = model.chains.data
    assert np.abs(fake).max() <= 1
    e_real, e_fake = twin.energy(2 * x - 1), twin.energy(fake)
    loss = e_real.mean() - e_fake.mean() + 0.1 * (ops.square(e_real) + ops.square(e_fake)).mean()
    loss.backward()
    optimizer = twin.optimizers()["adam"]
    optimizer.clip_grad_norm(0.1)
    optimizer.step()
    for (name, own), (_, theirs) in zip(model.named_parameters(), twin.named_parameters(), strict=True):
        np.testing.assert_allclose(own.data, theirs.data, atol=2e-6, err_msg=name)
    assert math.isclose(terms["gap"], e_real.mean().item() - e_fake.mean().item(), abs_tol=1e-6)
    assert math.isclose(terms["temperature"], 1.25e-6)
    assert "does not sample" in model.remarks()[0]


def test_igebm_step_by_step():
    energy = lambda x: (ops.square(x) * 0.5 + 0.02 * x).sum(axis=1)
    x, rng = Generator(0).uniform((5, 3), -1, 1), Generator(1)
    expected, twin = x, Generator(1)
    for _ in range(4):
        noisy = np.clip(expected + 0.005 * twin.normal((5, 3)), -1, 1)
        expected = np.clip(noisy - 10 * np.clip(noisy + 0.02, -0.03, 0.03), -1, 1)
    np.testing.assert_allclose(igebm(energy, x, 4, rng), expected, atol=1e-6)


def test_the_default_is_honest_langevin():
    for model in (mlp_ebm((2,), SMALL2D, Generator(0)), conv_ebm((8, 8, 1), SMALL, Generator(0))):
        assert model.temperature == 1
        assert "temperature 1" in model.remarks()[0]
        assert "does not sample" not in model.remarks()[0]
    cold = conv_ebm((8, 8, 1), dataclasses.replace(SMALL, step=0.5, noise=0.1), Generator(0))
    assert math.isclose(cold.temperature, temperature(0.1, 0.5))
    assert math.isclose(cold.temperature, 0.01)
    assert trained(cold, Generator(1).uniform((8, 8, 8, 1)), 1)[0]["temperature"] == cold.temperature


@pytest.mark.parametrize("sampler", ["langevin", "mala"])
def test_chains_walk_by_the_sampler_in_units_of_the_reference(sampler):
    """A step of the option is one of step · s²; the gradient is that of E with its Gaussian."""
    model = mlp_ebm((2,), dataclasses.replace(SMALL2D, sampler=sampler), Generator(0))
    trained(model, points(), 1)
    s = float(model.spread.data)
    assert 1.5 < s < 2.5
    step = model.config.step * s**2
    walked, accepted = model.walk(points(), 5, Generator(4))
    if sampler == "mala":
        expected, share = mala(model.energy, points(), 5, step, Generator(4))
        assert accepted == {"accepted": share}
    else:
        expected = ula(model.energy, points(), 5, step, Generator(4))
    np.testing.assert_array_equal(walked, expected)


def test_energy_and_score():
    """E is f plus the Gaussian, low where likely; the score is minus its gradient, by differences in float64."""
    model = mlp_ebm((2,), SMALL2D, Generator(0))
    trained(model, points(), 2)
    model.astype("float64")
    x = points(5).astype(np.float64)
    f = model.network(Tensor(x)).data[:, 0]
    gaussian = 0.5 * ((x - model.centre.data) ** 2).sum(axis=1) / model.spread.data**2
    np.testing.assert_allclose(model.energy(x).data, f + gaussian, rtol=1e-12)
    h, score = 1e-6, model.score(x)
    for i, axis in enumerate(np.eye(2)):
        slope = (model.energy(x + h * axis).data - model.energy(x - h * axis).data) / (2 * h)
        np.testing.assert_allclose(score[:, i], -slope, rtol=1e-6, atol=1e-8)


def test_training_makes_data_likely_and_reaches_every_parameter():
    for model, x in (
        (mlp_ebm((2,), SMALL2D, Generator(0)), 0.3 * points()),
        (conv_ebm((8, 8, 1), SMALL, Generator(0)), np.tile(Generator(1).uniform((1, 8, 8, 1)), (8, 1, 1, 1))),
    ):
        before = model.state_dict()
        trained(model, x, 40)
        assert [k for k, p in model.named_parameters() if (p.data == before[k]).all() and p.size > 1] == []
        seen = model.preprocess(x, Generator(5))
        far = seen + 1.5 * Generator(6).normal(seen.shape)
        assert model.energy(seen).data.mean() < model.energy(far).data.mean() - 0.5


def test_the_first_batch_sets_the_gaussian_and_the_chains():
    model = mlp_ebm((2,), dataclasses.replace(SMALL2D, restart=0.0, sampler="langevin"), Generator(0))
    x = points(32)
    trained(model, x, 1)
    np.testing.assert_allclose(model.centre.data, x.mean(axis=0), rtol=1e-6)
    assert math.isclose(float(model.spread.data), (x - x.mean(axis=0)).std(), rel_tol=1e-5)
    chains = model.chains.data.copy()
    trained(model, x + 1, 1, seed=2)
    assert abs(model.centre.data).max() < 5  # set once
    moved = (model.chains.data != chains).any(axis=1)
    assert moved.sum() == 32  # of the 48 those that walked in this step, and all of them


def test_a_share_of_the_chains_begins_again():
    model = mlp_ebm((2,), dataclasses.replace(SMALL2D, restart=0.25, chains=4000), Generator(0))
    trained(model, points(), 1)
    far = np.full((4000, 2), 1000, np.float32)
    anew = (model._some_anew(far, Generator(1)) != far).any(axis=1).mean()
    assert abs(anew - 0.25) < 4 * math.sqrt(0.25 * 0.75 / 4000)


def test_a_chain_of_60_steps_keeps_no_graph():
    """As many objects after 60 steps as after 10, and at no time more memory, though the cycle collector is off."""
    model = conv_ebm((8, 8, 1), SMALL, Generator(0))
    trained(model, Generator(1).uniform((8, 8, 8, 1)), 1)
    x = model.chains.data.copy()

    def cost(steps):
        gc.collect()
        gc.disable()
        tracemalloc.start()
        try:
            before = len(gc.get_objects())
            walked, _ = model.walk(x, steps, Generator(2))
            assert walked.shape == x.shape
            return len(gc.get_objects()) - before, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            gc.enable()

    cost(3)
    few, many = cost(10), cost(60)
    assert many[0] <= few[0] + 10
    assert many[1] < 1.1 * few[1] + 10_000


def test_the_same_seed_gives_the_same_model_and_another_another():
    def state(seed):
        model = mlp_ebm((2,), SMALL2D, Generator(0))
        trained(model, points(), 3, seed)
        return model.state_dict()

    one, same, other = state(1), state(1), state(2)
    assert all((one[k] == same[k]).all() for k in one)
    assert (one["chains"] != other["chains"]).any()


def test_samples_go_on_from_the_chains_and_leave_them_alone():
    for model, x in ((mlp_ebm((2,), SMALL2D, Generator(0)), points()), (conv_ebm((8, 8, 1), SMALL, Generator(0)), None)):
        x = Generator(1).uniform((8, 8, 8, 1)) if x is None else x
        trained(model, x, 2)
        before = model.state_dict()
        samples = model.sample(5, Generator(2))
        assert (samples.shape, samples.dtype) == ((5, *model.data_shape), np.float32)
        np.testing.assert_array_equal(samples, model.sample(5, Generator(2)))
        assert all((before[k] == v).all() for k, v in model.state_dict().items())
    assert samples.min() >= 0
    assert samples.max() <= 1


def test_samples_jump_to_the_clean_image_behind_the_noise():
    """For f linear, E[clean|x] = x + σ² ∇ log p(x) is c - σ² ∇f, whatever x is."""

    def network(x):
        return (x * slope).sum(axis=(1, 2, 3)).reshape(-1, 1)

    slope = Generator(3).normal((4, 4, 1))
    model = EBM(network, (4, 4, 1), EBMConfig(sampling_steps=3, data_noise=0.5))
    model.spread.data[...] = 0.5
    expected = np.clip((0 - 0.25 * slope + 1) / 2, 0, 1)
    np.testing.assert_allclose(model.sample(2, Generator(0)), np.stack([expected] * 2), atol=1e-6)


# ---- the partition function


def test_quadrature_of_gaussians():
    """log Z = log 2πs², also where the Gaussian is narrow, off the centre, or wider than the square to begin with."""
    for s, at in ((1.0, 0.0), (0.06, 2.7), (2.0, -1.0)):
        energy = lambda x, s=s, at=at: 0.5 * ((x - at) ** 2).sum(axis=1) / s**2
        log_z, error = log_partition(energy, np.zeros(2), 5.0)
        assert abs(log_z - math.log(2 * math.pi * s**2)) < 1e-3
        assert error < 1e-4


def test_quadrature_refuses_what_has_no_integral():
    with pytest.raises(Diverged, match="there is mass"):
        log_partition(lambda x: np.zeros(len(x)), np.zeros(2), 1.0, cells=20)
    with pytest.raises(Diverged, match="not finite"):
        log_partition(lambda x: np.where(x[:, 0] > 0, np.nan, 1.0), np.zeros(2), 1.0, cells=20)
    with pytest.raises(Diverged, match="not settled"):
        log_partition(lambda x: np.log(np.abs(x).sum(axis=1)) * 1.99 + (x**2).sum(axis=1), np.zeros(2), 5.0, 20, 1e-9)
    with pytest.raises(TypeError, match="points in the plane"):
        conv_ebm((8, 8, 1), SMALL, Generator(0)).log_partition()


# ---- the guard


def test_the_guard_stops_before_anything_is_changed():
    model = mlp_ebm((2,), dataclasses.replace(SMALL2D, guard=10.0), Generator(0))
    trained(model, points(), 1)
    before, rng, optimizers = model.state_dict(), Generator(1), model.optimizers()
    with pytest.raises(Diverged, match=r"energies of data, .* of chains, .* more than 20 nats apart"):
        model.train_step(points() + 50, rng, optimizers)
    bad = points()
    bad[0] = np.nan
    with pytest.raises(Diverged, match="energies of data, nan"):
        model.train_step(bad, rng, optimizers)
    assert all((before[k] == v).all() for k, v in model.state_dict().items())


def test_a_run_that_diverges_goes_back_and_can_go_on(tmp_path, bare, capsys):
    """From the command line: exit status 1, one line that says what, when, and how to go on; which then works."""
    out = ["--out", str(tmp_path / "run"), *CLI]
    train = ["train", "ebm2d", "--data", "8gaussians", "--steps", "12", "--checkpoint-every", "1"]
    assert cli.main([*train, "--lr", "1000", *out]) == 1
    told = capsys.readouterr().err
    assert re.fullmatch(
        r"minigen: step 2: the mean energies of data, \S+, and of chains, \S+, are more than 20 nats apart .*; "
        r"the run is back at its beginning, .*: go on with --resume --lr 500, or less\n",
        told,
    ), told
    assert cli.main(["train", "ebm2d", "--resume", "--lr", "0.001", *out]) == 0
    assert load_run(tmp_path / "run").step == 12
    assert load_run(tmp_path / "run").config.options.lr == 0.001


# ---- from the command line


@pytest.mark.parametrize(("model", "data"), [("ebm2d", "moons"), ("ebm", "digits"), ("rbm", "digits"), ("ncsn2d", "moons")])
def test_runs_resume_bit_for_bit(model, data, tmp_path, bare):
    """Chains that persist are part of the state, as are what the first batch has set."""
    options = {
        "ebm2d": CLI,
        "ebm": [*CLI, "--sampling-steps", "2"],
        "rbm": ["--hidden", "10", "--quiet", "--threads", "1", "--chains", "20"],
        "ncsn2d": ["--base", "8", "--quiet", "--threads", "1", "--batch-size", "16"],
    }[model]
    train = ["train", model, "--data", data, *options, "--log-every", "2", "--evaluate-every", "100"]
    assert cli.main([*train, "--steps", "6", "--out", str(tmp_path / "whole")]) == 0
    assert cli.main([*train, "--steps", "3", "--out", str(tmp_path / "parts")]) == 0
    assert cli.main(["train", model, "--resume", "--steps", "6", "--quiet", "--out", str(tmp_path / "parts")]) == 0
    states = [Checkpoints(tmp_path / name / "checkpoints").latest().state for name in ("whole", "parts")]
    for part in ("model", "ema"):
        for name, array in states[0][part].items():
            np.testing.assert_array_equal(array, states[1][part][name], err_msg=name)
    assert states[0]["rng"] == states[1]["rng"]
    if model != "ncsn2d":
        assert np.abs(states[0]["model"]["chains"]).max() > 0
        assert states[0]["model"]["started"] == 1
    draws = [load_run(tmp_path / name).model.sample(3, Generator(0)) for name in ("whole", "parts")]
    np.testing.assert_array_equal(*draws)


def test_train_sample_and_evaluate(tmp_path, bare, capsys):
    out = str(tmp_path / "run")
    assert cli.main(["train", "ebm", "--data", "moons", "--steps", "30", "--out", out, *CLI]) == 0  # the family's name
    assert cli.main(["evaluate", out, "-n", "500"]) == 0
    told = capsys.readouterr().out
    assert "ebm2d on moons" in told
    assert re.search(r"NLL \d\.\d+ ± .*exact, Z by quadrature, n = 500.*floor 1.0076", told), told
    assert cli.main(["sample", out, "-n", "50", "--out", str(tmp_path / "samples")]) == 0
    assert "temperature 1" in capsys.readouterr().out
    assert np.load(tmp_path / "samples.npy").shape == (50, 2)


def test_images_have_no_likelihood_and_say_so(tmp_path, bare, capsys):
    out = str(tmp_path / "run")
    assert cli.main(["train", "ebm", "--steps", "2", "--out", out, *CLI]) == 0
    assert cli.main(["evaluate", out]) == 0
    assert "no likelihood: ebm gives digits no probabilities" in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "told"), [
    ("ebm2d --data digits", "ebm2d models points"),
    ("ebm --data digits --chains 10", "10 chains for batches of 64"),
    ("ebm --data digits --noise 0", "--noise 0 is gradient descent"),
    ("ebm --data digits --sampler mala --noise 0.1", "--noise is for --sampler langevin"),
    ("ebm --data digits --data-noise 0", "--reference noise needs a --data-noise"),
    ("ebm2d --data moons --reference none", "nothing would keep the density of points normalisable"),
    ("rbm --data moons", "rbm models black and white images"),
    ("ncsn2d --data digits", "ncsn2d models points"),
    ("ncsn2d --data moons --sigma-max 0.01", "--sigma-max 0.01 must be above --sigma-min 0.05"),
    ("ebm --data digits --sampler gibbs", "known are langevin, mala, igebm"),
    ("rbm --data digits --algorithm sgd", "known are pcd, cd"),
])  # fmt: skip
def test_bad_options(arguments, told, tmp_path, capsys):
    status = cli.main(["train", *arguments.split(), "--out", str(tmp_path / "run")])
    error = capsys.readouterr().err
    assert (status, error.count("\n")) == (2, 1), error
    assert told in error
    assert not (tmp_path / "run").exists()


def test_ebm_for_images_of_other_sizes():
    for shape in ((4, 4, 1), (10, 17, 3)):
        model = MODELS["ebm"].build(shape, SMALL, Generator(0))
        assert model.energy(np.zeros((2, *shape), np.float32)).shape == (2,)
    for shape in ((2,), (3, 8, 1)):
        with pytest.raises(ValueError, match="at least 4 x 4"):
            conv_ebm(shape, SMALL, Generator(0))


def test_parameters_get_no_gradient_from_a_chain():
    model = mlp_ebm((2,), SMALL2D, Generator(0))
    energy_and_gradient(model.energy, points())
    assert all(p.grad is None for p in model.parameters())
