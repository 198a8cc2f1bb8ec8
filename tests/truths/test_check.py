"""`minigen check`: truths that hold, fail with the likely mistake named, or do not apply; for our classes and a reader's own.

Start at `MyDDPM`, a reader's class in thirty lines of NumPy, and `MISTAKES`, what is then said of it.
"""

import math
import textwrap

import numpy as np
import pytest

from minigen import cli, ops
from minigen.models import FAMILIES, MODELS
from minigen.models.flow import ActNorm, Flow, FlowConfig
from minigen.models.vae import VAE
from minigen.truths import TRUTHS, Finding, SubjectError, Truth, check, subjects
from minigen.truths.checking import built_in

MY_MODULE = '''
import numpy as np

class MyDDPM:
    """Noise is predicted, the schedule is linear, sampling ancestral with variance β."""

    supports = {"prediction": ("eps",), "schedule": ("linear",), "sampler": ("ancestral",), "variance": ("large",),
                "sampling_steps": (0,)}

    def __init__(self, network, data_shape, config):
        self.network, self.data_shape, self.T = network, data_shape, config.timesteps
        self.beta = np.concatenate([[0.0], np.linspace(1e-4, 0.02, self.T)])
        self.alpha_bar = np.cumprod(1 - self.beta)

    def eps(self, x, t):
        return self.network(x, np.broadcast_to(np.asarray(t) / self.T, len(x)), None).data

    def loss(self, x, rng):
        t = rng.integers(1, self.T + 1, (len(x),))
        eps = rng.normal(x.shape)
        a = self.alpha_bar[t][:, None]
        return ((self.eps(np.sqrt(a) * x + np.sqrt(1 - a) * eps, t) - eps) ** 2).mean()

    def denoise(self, x, t):
        eps = self.eps(x, t)
        return (x - np.sqrt(1 - self.alpha_bar[t]) * eps) / np.sqrt(self.alpha_bar[t]), eps

    def sample(self, n, rng):
        x = rng.normal((n, *self.data_shape))
        for t in range(self.T, 0, -1):
            eps = self.denoise(x, t)[1]
            x = (x - self.beta[t] / np.sqrt(1 - self.alpha_bar[t]) * eps) / np.sqrt(1 - self.beta[t])
            if t > 1:
                x = x + np.sqrt(self.beta[t]) * rng.normal(x.shape)
        return x
'''

MISTAKES = {  # the truth that notices: what is replaced, by what, and what is then said
    "ddpm-gaussian": [
        ("rng.integers(1, self.T + 1,", "rng.integers(1, self.T,", "t is drawn from 1..T-1: step T"),
        ("rng.integers(1, self.T + 1,", "rng.integers(0, self.T,", "t is drawn from 0..T-1"),
        ("np.sqrt(1 - a) * eps, t)", "(1 - a) * eps, t)", "the noise is scaled by 1 - ᾱ"),
        ("np.sqrt(a) * x", "a * x", "the data are scaled by ᾱ where √ᾱ is meant"),
        ("a = self.alpha_bar[t]", "a = self.alpha_bar[t - 1]", "the schedule is off by one"),
        ("t) - eps) ** 2", "t) - x) ** 2", "compared with x_0"),
        (".mean()", ".mean() / 2", "a factor ½"),
        (".mean()", ".astype(np.float32).mean()", "just what comes out if it computes in float32"),
    ],
    "sampler-std": [
        ("if t > 1:", "if True:", "noise is added at the last step too"),
        ("np.sqrt(self.beta[t]) * rng", "self.beta[t] * rng", "the noise is scaled by the variance σ²"),
        ("np.sqrt(self.beta[t]) * rng", "0 * rng", "no noise is added between the steps"),
        ("range(self.T, 0, -1)", "range(self.T - 1, 0, -1)", "it starts at step T - 1 instead of T"),
    ],
    "param-round-trip": [("/ np.sqrt(self.alpha_bar[t]), eps", ", eps", "likely: v = ")],
}


def made(source, monkeypatch, tmp_path, name):
    """The class of a module with this source, as the command line would find it."""
    (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return subjects(f"{name}:MyDDPM")[0][1]


def states(cls, *names):
    return {verdict.truth.name: verdict for verdict in check(cls, [TRUTHS[n] for n in names] or TRUTHS.values())}


def test_a_readers_class_that_is_right(monkeypatch, tmp_path):
    found = states(made(MY_MODULE, monkeypatch, tmp_path, "my_right"))
    assert {name for name, v in found.items() if v.state == "holds"} == {"ddpm-gaussian", "sampler-std", "param-round-trip"}
    assert not [name for name, v in found.items() if v.state == "fails"]
    assert str(found["ddpm-gaussian"]).endswith("(one value agrees)")
    assert str(found["ddpm-vlb"]) == "ddpm-vlb does not apply: it has no log_prob_bound"
    assert "supports none of what it is about" in str(found["memorise"])


@pytest.mark.parametrize(("truth", "i"), [(truth, i) for truth, cases in MISTAKES.items() for i in range(len(cases))])
def test_a_readers_mistake_is_named(truth, i, monkeypatch, tmp_path):
    old, new, said = MISTAKES[truth][i]
    assert old in MY_MODULE
    found = states(made(MY_MODULE.replace(old, new), monkeypatch, tmp_path, f"my_{truth.replace('-', '_')}_{i}"))
    assert found[truth].state == "fails"
    assert said in str(found[truth])
    assert {name for name, v in found.items() if v.state == "fails"} == {truth}, "a truth that fails says where to look"


def test_what_a_class_raises_is_told_with_its_place(monkeypatch, tmp_path):
    source = MY_MODULE.replace("        a = self.alpha_bar[t][:, None]\n", "        a = self.alpha_baar[t][:, None]\n")
    verdict = states(made(source, monkeypatch, tmp_path, "my_raising"), "ddpm-gaussian")["ddpm-gaussian"]
    line = source.splitlines().index("        a = self.alpha_baar[t][:, None]") + 1
    assert verdict.state == "fails"
    assert f"raised AttributeError in my_raising.py, line {line}: 'MyDDPM' object has no attribute 'alpha_baar'" in str(verdict)


class MeanOverTheCode(VAE):
    def elbo(self, x, rng):
        _, log_px, kl = super().elbo(x, rng)
        return log_px - kl / 3, log_px, kl  # of three dimensions


class Twice(VAE):
    def elbo(self, x, rng):
        _, log_px, kl = super().elbo(x, rng)
        return log_px - 2 * kl, log_px, kl


class NoKl(VAE):
    def elbo(self, x, rng):
        _, log_px, kl = super().elbo(x, rng)
        return log_px, log_px, kl


class NoTwoPi(VAE):
    def elbo(self, x, rng):
        elbo, log_px, kl = super().elbo(x, rng)
        return elbo + 3 * math.log(2 * math.pi), log_px, kl  # of six values


@pytest.mark.parametrize(("mutant", "said"), [
    (MeanOverTheCode, "the KL term is averaged over the code"),
    (Twice, "the KL term counts twice"),
    (NoKl, "the KL term is left out"),
    (NoTwoPi, "log p(x|z) has no ½ log 2π"),
])  # fmt: skip
def test_a_mistake_in_a_vae_is_named(mutant, said):
    assert said in str(states(mutant, "linear-vae")["linear-vae"])


# ---- flows: mistakes that have been made


class WrongSign(Flow):
    def encode(self, x):
        z, log_det = super().encode(x)
        return z, -log_det


class PerDimension(Flow):
    def encode(self, x):
        z, log_det = super().encode(x)
        return z, 2 * log_det


class NoConstant(Flow):
    def log_prob(self, x):
        return super().log_prob(x) + math.log(2 * math.pi)


class Subtracted(Flow):
    def log_prob(self, x):
        return super().log_prob(x) - 2 * self.encode(x)[1]


class AnotherBase(Flow):
    """A logistic prior in the sampler, a normal one in the density."""

    def sample(self, n, rng):
        u = rng.uniform((n, 2), 1e-6, 1 - 1e-6, np.float64)
        return self.bijection.inverse(ops.log(u / (1 - u)) + self.bijection(np.zeros((1, 2)))[0] * 0).data


class StartsAgain(ActNorm):
    def _start(self, x):
        super()._start(x)
        self.started.data[...] = 0


class OnePosition(ActNorm):
    def forward(self, x):
        return super().forward(x)[0], self.log_scale.sum()


FLOW_MISTAKES = {
    WrongSign: ("flow-density", "the log-determinant has the wrong sign"),
    PerDimension: ("flow-density", "the log-determinant is added to each of the 2 dimensions"),
    NoConstant: ("flow-density", "log N(z; 0, I) has no ½ log 2π"),
    Subtracted: ("flow-density", "log |det| is subtracted where it must be added"),
    AnotherBase: ("flow-density", "another base in the sampler than in the density"),
    StartsAgain: ("actnorm", "every batch starts it again"),
    OnePosition: ("actnorm", "the positions of an image are not counted"),
}


@pytest.mark.parametrize("mutant", FLOW_MISTAKES, ids=lambda cls: cls.__name__)
def test_a_mistake_in_a_flow_is_named(mutant):
    truth, said = FLOW_MISTAKES[mutant]
    if issubclass(mutant, Flow):
        example = built_in(MODELS["realnvp"]).example
        mutant.example = staticmethod(lambda rng: mutant(example(rng).bijection, (2,), FlowConfig()))
    verdict = states(mutant, truth)[truth]
    assert verdict.state == "fails"
    assert said in str(verdict)


@pytest.mark.parametrize(("name", "holding"), [
    ("realnvp", {"flow-density", "entropy-floor", "gaussian-mle"}),
    ("glow", {"dequantise"}),
    ("minigen.models.flow:ActNorm", {"actnorm"}),
])  # fmt: skip
def test_what_holds_for_our_flows(name, holding):
    ((_, cls),) = subjects(name)
    assert {n: v.state for n, v in states(cls).items() if v.state != "does not apply"} == dict.fromkeys(holding, "holds")


def test_a_density_that_is_none_falls_below_the_floor():
    """Never divided by its integral: training finds out how to gain from that."""

    class Unnormalised(Flow):
        def log_prob(self, x):
            return super().log_prob(x) + 2

    example = built_in(MODELS["realnvp"]).example
    Unnormalised.example = staticmethod(lambda rng: Unnormalised(example(rng).bijection, (2,), FlowConfig()))
    verdict = states(Unnormalised, "entropy-floor")["entropy-floor"]
    assert verdict.state == "fails"
    assert verdict.findings[0].value > 0.5


# ---- subjects, and the command


def test_every_model_and_family_is_a_subject_with_a_truth():
    for name in (*MODELS, *FAMILIES):
        for _, cls in subjects(name):
            assert any(truth.fits(cls) for truth in TRUTHS.values()), name


@pytest.mark.parametrize(("name", "said"), [
    ("vaee", "nothing to check is called 'vaee': give a model (vae"),
    ("no_such_module:X", "no_such_module cannot be imported: raised ModuleNotFoundError"),
    ("minigen.models:Nothing", "minigen.models has no class 'Nothing'"),
    ("minigen.models:MODELS", "minigen.models has no class 'MODELS'"),
])  # fmt: skip
def test_subjects_that_are_none(name, said, capsys):
    with pytest.raises(SubjectError) as error:
        subjects(name)
    assert said in str(error.value)
    assert cli.main(["check", name]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command(monkeypatch, tmp_path, capsys):
    (tmp_path / "my_command.py").write_text(MY_MODULE.replace("if t > 1:", "if True:"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["check", "my_command:MyDDPM"]) == 1
    out = capsys.readouterr().out
    assert "sampler-std FAILS" in out
    assert "        just what comes out if noise is added at the last step too\n" in out
    assert out.endswith("2 of 3 truths hold\n")
    assert cli.main(["check", "glow", "--only", "dequantise"]) == 0
    assert capsys.readouterr().out.endswith("1 of 1 truths hold\n")
    assert cli.main(["check", "glow", "--only", "dequantize"]) == 2
    assert "did you mean dequantise?" in capsys.readouterr().err
    assert cli.main(["check", "minigen.nn:Linear"]) == 2
    assert "no truth applies to minigen.nn:Linear" in capsys.readouterr().err


# ---- the parts


def test_a_finding_names_the_mistake_whose_value_it_is():
    finding = Finding("x", 2.0, 1.0, 1e-9, ((3.0, "tripled"), (2.0 + 1e-12, "doubled")))
    assert finding.mistake == "doubled"
    assert Finding("x", 2.1, 1.0, 1e-9, ((3.0, "tripled"), (2.0, "doubled"))).mistake is None
    assert "float32" in Finding("x", 1 + 1e-7, 1.0, 1e-9, ((3.0, "tripled"),)).mistake
    assert Finding("x", 1 + 1e-7, 1.0, 1e-9, ((1 + 1e-7, "off by a hair"),)).mistake == "off by a hair"
    assert Finding("x", math.nan, 1.0, 1e-9, ((3.0, "tripled"),)).mistake is None


def test_a_truth_says_what_a_class_lacks():
    class Something:
        def __init__(self, network, data_shape):
            pass

        def sample(self):
            pass

    truth = lambda needs, made_of: Truth("t", "claim", "source", needs, lambda cls: [], made_of)
    assert truth(("sample",), ("network",)).lacks(Something) == ""
    assert truth(("sample", "loss"), ()).lacks(Something) == "it has no loss"
    assert truth(("sample",), ("encoder",)).lacks(Something) == "it is not made as Something(encoder, ...)"
    assert all(t.claim[0].islower() or t.claim[:2].isupper() or t.claim[0] in "ε∫E" for t in TRUTHS.values())
    assert textwrap.dedent(MY_MODULE) == MY_MODULE
