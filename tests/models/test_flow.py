"""Flows as models: built by name, trained, saved and resumed by the program's own loop, sampled, scored, refused."""

import dataclasses

import numpy as np
import pytest

from minigen import no_grad
from minigen.data import TOYS
from minigen.models import MODELS, RealNVPConfig
from minigen.models.glow import GlowConfig
from minigen.models.spline import rational_quadratic
from minigen.random import Generator
from minigen.training.config import ConfigError, RunConfig
from minigen.training.figures import estimate, likelihood, scores
from minigen.training.run import Run, load_run, train

TINY = {"hidden": 8, "batch_size": 32, "steps": 6}
FLOWS = dict.fromkeys(("realnvp", "spline", "maf", "iaf"), ("moons", TINY))
FLOWS["glow"] = ("digits", TINY | {"flow_steps": 1, "scales": 2})


def config(name, **changes):
    data, options = FLOWS[name]
    options = MODELS[name].config(**options)
    return RunConfig(model=name, data=data, options=options, checkpoint_every=3, evaluate_every=6, **changes)


@pytest.mark.parametrize("name", FLOWS)
def test_trains_resumes_bit_for_bit_samples_and_evaluates(name, tmp_path):
    whole = train(config(name), tmp_path / "whole", quiet=True)
    train(config(name, steps=3), tmp_path / "parts", quiet=True)
    resumed = train(config(name, steps=6), tmp_path / "parts", resume=True, quiet=True)
    for key, value in whole.model.state_dict().items():
        np.testing.assert_array_equal(resumed.model.state_dict()[key], value, err_msg=key)

    run = load_run(tmp_path / "whole")
    samples = run.model.sample(5, Generator(0))
    assert samples.shape == (5, *run.test.x.shape[1:])
    assert np.isfinite(samples).all()
    x, own = run.test.x[:200], run.model.estimators(1)
    nll = estimate(run, x, "exact", own["exact"]) if own else likelihood(run, x, 1)
    assert nll.estimator == ("ELBO" if name == "glow" else "exact")
    assert ("histogram of each pixel" if name == "glow" else "floor 1.0076") in str(nll)
    assert set(scores(run)) == {"test_elbo" if name == "glow" else "test_log_prob"}


def test_what_each_can_do():
    assert MODELS["spline"].cls.capabilities() == ["sample", "log_prob", "encode"]
    assert MODELS["glow"].cls.capabilities() == ["sample", "log_prob_bound", "encode"]


@pytest.mark.parametrize("name", ["realnvp", "spline", "maf", "iaf"])
def test_a_flow_starts_as_a_gaussian_and_its_code_leads_back(name):
    x = TOYS["moons"].sample(500, Generator(0))
    flow = MODELS[name].build((2,), MODELS[name].config(), Generator(1))
    with no_grad():
        z, log_det = flow.encode(x)  # the first batch sets the ActNorm
        np.testing.assert_allclose(z.data, (x - x.mean(axis=0)) / x.std(axis=0), atol=1e-4)
        np.testing.assert_allclose(log_det.data, -np.log(x.std(axis=0)).sum(), rtol=1e-4)
        np.testing.assert_allclose(flow.bijection.inverse(z).data, x, atol=1e-4)


@pytest.mark.parametrize("name", ["realnvp", "spline", "maf", "iaf"])
def test_flows_of_points_refuse_images_and_single_numbers(name):
    for shape in ((28, 28, 1), (1,)):
        with pytest.raises(ValueError, match=f"{name} needs points of two dimensions"):
            MODELS[name].build(shape, MODELS[name].config(), Generator(0))


def test_grey_levels_are_those_of_the_data(tmp_path):
    wrong = dataclasses.replace(config("glow"), options=GlowConfig(levels=256))
    with pytest.raises(ConfigError, match="digits are images of 17 grey levels"):
        train(wrong, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()
    assert Run(config("glow")).model.levels == 17
    assert Run(config("realnvp")).model.levels is None


# ---- the spline


def spline(x, raw, inverse=False):
    from minigen import Tensor

    with no_grad():
        y, log_slope = rational_quadratic(Tensor(x), Tensor(raw), 3.0, inverse)
    return y.data, log_slope.data


def test_a_spline_of_zeros_is_the_identity():
    x = np.linspace(-4, 4, 101)[:, None]
    y, log_slope = spline(x, np.zeros((101, 1, 23)))
    np.testing.assert_allclose(y, x, atol=1e-12)
    np.testing.assert_allclose(log_slope, 0, atol=1e-12)


def test_a_spline_increases_joins_its_bins_smoothly_and_leaves_the_outside_alone():
    raw = np.broadcast_to(np.random.default_rng(0).normal(scale=2, size=(1, 1, 23)), (40_001, 1, 23))
    x = np.linspace(-4, 4, 40_001)[:, None]
    y, log_slope = spline(x, raw)
    assert (np.diff(y[:, 0]) > 0).all()
    slope = np.exp(log_slope[:, 0])
    assert np.abs(np.diff(slope)).max() < 0.02 * slope.max()  # continuous across the knots, and at the ends, where it is 1
    np.testing.assert_allclose(np.gradient(y[:, 0], x[:, 0])[5:-5], slope[5:-5], atol=0.02 * slope.max())
    outside = np.abs(x) >= 3
    np.testing.assert_array_equal(y[outside], x[outside])
    back, log_back = spline(y, raw, inverse=True)
    np.testing.assert_allclose(back, x, atol=1e-7)
    np.testing.assert_allclose(log_back, -log_slope, atol=1e-6)


def test_a_spline_carries_nan_and_infinity():
    y, _ = spline(np.array([[np.nan], [np.inf], [-np.inf]]), np.zeros((3, 1, 23)))
    np.testing.assert_array_equal(y[:, 0], [np.nan, np.inf, -np.inf])


def test_the_learning_rate_stays_then_falls_to_a_fiftieth():
    optimizer = MODELS["realnvp"].build((2,), RealNVPConfig(lr=0.1, anneal=100), Generator(0)).optimizers()["adam"]
    rates = []
    for optimizer.steps in (0, 50, 75, 99, 100, 1000):
        rates.append(optimizer.current_lr)
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.05, 0.002, 0.002, 0.002])
    constant = MODELS["realnvp"].build((2,), RealNVPConfig(lr=0.1, anneal=0), Generator(0)).optimizers()["adam"]
    assert constant.current_lr == 0.1
