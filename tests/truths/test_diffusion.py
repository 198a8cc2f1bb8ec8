"""Truths of diffusion, all exact: ddpm-gaussian, ddpm-vlb, sampler-std, pf-ode, memorise, ddim-eta1, param-round-trip.

They stand in minigen/truths/ddpm.py. Each is run on our model, and then on mistakes put into our own code, all of which it has
to catch.
"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted import plant

from minigen.models import ddpm, probability_flow
from minigen.models.ddpm import DDPM, log_discretised_normal
from minigen.models.noise import PREDICTIONS, Schedule, target, x0_and_eps
from minigen.truths import TRUTHS, GaussianData
from minigen.truths import check as run_truths
from minigen.truths.ddpm import S2, Signs, _best

CHECKS = {truth.name: truth.check for truth in TRUTHS.values() if truth.needs[-1] == "denoise"}


def broken(findings):
    return [str(f) for f in findings if not f.holds]


@pytest.mark.parametrize("name", CHECKS)
def test_truth(name):
    findings = CHECKS[name](DDPM)
    assert findings
    assert broken(findings) == []


# ---- the same, with mistakes


MISTAKES = {  # what it is: who catches it, where it is made, what is replaced, by what
    "times from 1 to T-1": ("ddpm-gaussian", DDPM, "spread_times", "n) % steps", "n) % (steps - 1)"),
    "times from 0 to T-1": ("ddpm-gaussian", DDPM, "spread_times", "1 + (start", "(start"),
    "noised to the step before": ("ddpm-gaussian", Schedule, "q_sample", "signal_and_noise(t,", "signal_and_noise(t - 1,"),
    "variance for a standard deviation": (
        "ddpm-gaussian", Schedule, "signal_and_noise",
        "np.sqrt(1 - alpha_bar)",
        "(1 - alpha_bar)",
    ),
    "v with the wrong sign": ("ddpm-gaussian", ddpm, "target", "a * eps - b * x0", "a * eps + b * x0"),
    "v and x_0 exchanged": (
        "ddpm-vlb", ddpm, "x0_and_eps",
        "a * x - b * output, b * x + a * output",
        "b * x + a * output, a * x - b * output",
    ),
    "without L_T": ("ddpm-vlb", DDPM, "log_prob_bound", "bound = -0.5", "bound = -0.0"),
    "L_T without its logarithm": ("ddpm-vlb", DDPM, "log_prob_bound", " - math.log1p(-left)", ""),
    "without L_0": ("ddpm-vlb", DDPM, "log_prob_bound", "bound += self", "bound += 0 * self"),
    "a mean for a sum over steps": ("ddpm-vlb", DDPM, "log_prob_bound", "middle / k *", "1 / k *"),
    "L_1 left out": ("ddpm-vlb", DDPM, "log_prob_bound", "2 + np.floor", "3 + np.floor"),
    "KL the other way round": (
        "ddpm-vlb", DDPM, "_kl",
        "np.log(own / right) - 1 + right / own",
        "np.log(right / own) - 1 + own / right",
    ),
    "KL without the variances": ("ddpm-vlb", DDPM, "_kl", "np.log(own / right) - 1 + right / own", "0"),
    "means compared in units of β̃": ("ddpm-vlb", DDPM, "_kl", "miss / own", "miss / right"),
    "decoder without 2π": ("ddpm-vlb", DDPM, "_log_decoder", " + LOG_2PI", ""),
    "the posterior's β misplaced": (
        "ddpm-vlb", Schedule, "posterior_mean",
        "np.sqrt(before) * beta[t]",
        "np.sqrt(now) * beta[t]",
    ),
    "no noise": ("sampler-std", DDPM, "sample", "shaped(sigma[i], x) * z", "0 * z"),
    "variance for a standard deviation, sampling": (
        "sampler-std", DDPM, "sample",
        "np.sqrt(path.variance(config.variance))",
        "path.variance(config.variance)",
    ),
    "noise at the last step": ("sampler-std", DDPM, "sample", "i > 1 and", ""),
    "starts at T-1": ("sampler-std", DDPM, "sample", "range(path.T,", "range(path.T - 1,"),
    "ends at 1": ("sampler-std", DDPM, "sample", "path.T, 0, -1", "path.T, 1, -1"),
    "told the wrong time": ("sampler-std", DDPM, "sample", "path.times[i]", "path.times[i - 1]"),
    "variances of the whole process on a part of it": (
        "sampler-std", DDPM, "sample",
        "np.sqrt(path.variance",
        "np.sqrt(self.schedule.variance",
    ),
    "leading spacing": (
        "sampler-std", Schedule, "subset",
        "np.linspace(self.T, 1, count)",
        "np.arange(count, 0, -1) * (self.T // count)",
    ),
    "DDIM that forgets σ": ("ddim-eta1", Schedule, "ddim_step", "1 - before - sigma2", "1 - before"),
    "DDIM's η twice": ("ddim-eta1", Schedule, "ddim_step", "eta**2", "2 * eta**2"),
    "DDIM with ᾱ of this step": ("memorise", Schedule, "ddim_step", "self.alpha_bar[t - 1]", "self.alpha_bar[t]"),
    "β for β̃": ("ddim-eta1", Schedule, "posterior_mean", "(1 - before) / (1 - now)", "(1 - now) / (1 - before + 1e-9)"),
    "g for g²": (
        "pf-ode", probability_flow, "log_prob",
        "alpha_bar, beta = schedule.between(t)",
        "alpha_bar, beta = schedule.between(t)[0], math.sqrt(schedule.between(t)[1])",
    ),
    "g² without the ½": (
        "pf-ode", probability_flow, "log_prob",
        "-0.5 * beta * (x - noise / b)",
        "-0.5 * beta * (x - 2 * noise / b)",
    ),
    "the wrong sign of the trace": ("pf-ode", probability_flow, "log_prob", "total += h", "total -= h"),
    "no trace": ("pf-ode", probability_flow, "log_prob", "total += h", "total += 0 * h"),
    "trace of one dimension": ("pf-ode", probability_flow, "_with_divergence", "divergence += row", "divergence = row"),
    "score for ε": ("pf-ode", probability_flow, "log_prob", "x - noise / b", "x - noise"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_caught(mistake, monkeypatch):
    check, owner, name, text, new = MISTAKES[mistake]
    plant(monkeypatch, owner, name, text, new)
    assert {v.state for v in run_truths(DDPM, [TRUTHS[check]])} == {"fails"}


# ---- numbers that were computed elsewhere


@pytest.mark.parametrize(("name", "steps", "loss"), [
    ("linear", 1000, 0.17305), ("linear", 100, 0.17080), ("cosine", 1000, 0.32765), ("cosine", 100, 0.32315),
])  # fmt: skip
def test_least_losses(name, steps, loss):
    assert abs(GaussianData(S2, Schedule.named(name, steps).alpha_bar).least_loss() - loss) < 6e-6


@pytest.mark.parametrize(("steps", "small", "large"), [(10, 0.567, 0.0553), (100, 0.735, 0.0061), (1000, 0.402, 0.0006)])
def test_gaps_of_the_fixed_variances(steps, small, large):
    """Of the steps before the last one, which has a variance of its own."""
    schedule = Schedule.cosine(steps)
    truth = GaussianData(S2, schedule.alpha_bar)
    assert abs(truth.gaps(schedule.variance("small"))[1:].sum() - small) < 6e-4
    assert abs(truth.gaps(schedule.variance("large"))[1:].sum() - large) < 6e-5


def test_spreads_of_samplers():
    schedule = Schedule.linear(1000)
    truth = GaussianData(S2, schedule.alpha_bar)
    assert abs(truth.ancestral_std(schedule.beta) - 0.5008) < 6e-5
    assert abs(truth.ancestral_std(schedule.beta_tilde) - 0.4961) < 6e-5
    found = [GaussianData(S2, schedule.subset(steps).alpha_bar).ddim_std() for steps in (10, 50, 1000)]
    np.testing.assert_allclose(found, [0.3616, 0.4719, 0.4985], atol=6e-5)


# ---- and the rest


@given(st.integers(1, 100), st.sampled_from(PREDICTIONS), st.integers(0, 2**32 - 1))
def test_param_round_trip(t, kind, seed):
    x0, eps = np.random.default_rng(seed).normal(size=(2, 5, 3))
    a, b = Schedule.cosine(100).signal_and_noise(t, x0)
    back = x0_and_eps(kind, target(kind, x0, eps, a, b), a * x0 + b * eps, a, b)
    np.testing.assert_allclose(back, (x0, eps), rtol=1e-7, atol=1e-7)  # ᾱ_T = 2.4e-7: x_0 = x_T/a loses four digits


@given(st.floats(-3, 3), st.floats(1e-3, 10), st.sampled_from([2, 17, 256]))
def test_discretised_normal_sums_to_one(mean, sigma, levels):
    x = np.linspace(-1, 1, levels)
    log_p = log_discretised_normal(x.astype(np.float32), np.full(levels, mean), sigma, levels)
    assert abs(np.exp(log_p).sum() - 1) < 2e-4  # float32 levels are off by 6e-8, and sigma may be 1e-3
    assert np.isfinite(log_p).all()
    log_p = log_discretised_normal(x, np.full(levels, mean), sigma, levels)
    assert abs(np.exp(log_p).sum() - 1) < 1e-12


def test_the_bound_counts_each_term_once_from_any_number_of_them(monkeypatch):
    """Σ_t t² from k terms: exact as the mean over all positions of the comb, though not for each."""
    model, _ = _best(DDPM, schedule="cosine", timesteps=30)
    monkeypatch.setattr(model, "_kl", lambda x, t, rng: t.astype(float) ** 2)
    n = 29 * 50

    class Comb(Signs):
        def uniform(self, shape, dtype=None):
            return (np.arange(n) + 0.5) / n

    rest = model.log_prob_bound(np.ones((n, 1)), 31, Comb()).mean() + sum(t**2 for t in range(2, 31))
    for k in (1, 3, 7, 20, 30, 31, 1000):
        bound = model.log_prob_bound(np.ones((n, 1)), k, Comb())
        assert math.isclose(rest - bound.mean(), sum(t**2 for t in range(2, 31)), rel_tol=1e-9)


def test_score_of_a_gaussian():
    model, truth = _best(DDPM, schedule="linear", timesteps=50)
    x = np.linspace(-2, 2, 9)[:, None]
    for t in (1, 20, 50):
        v = truth.alpha_bar[t] * S2 + 1 - truth.alpha_bar[t]
        np.testing.assert_allclose(model.score(x, t), -x / v, rtol=1e-9)


def test_schedules():
    for name in ("linear", "cosine"):
        for steps in (30, 1000):
            schedule = Schedule.named(name, steps)
            assert len(schedule.beta) == steps + 1
            assert schedule.alpha_bar[0] == 1
            assert (np.diff(schedule.alpha_bar) < 0).all()
            assert schedule.alpha_bar[-1] < 1e-4
            for t in (1, 7, steps):
                assert math.isclose(schedule.between(t)[0], schedule.alpha_bar[t], rel_tol=1e-12)
            whole = schedule.subset(steps)
            np.testing.assert_array_equal(whole.alpha_bar, schedule.alpha_bar)
            assert schedule.subset(1).times.tolist() == [0, steps]
    with pytest.raises(ValueError, match="more than 20 steps"):
        Schedule.linear(20)
    with pytest.raises(ValueError, match="has no 31"):
        Schedule.cosine(30).subset(31)
