"""`minigen check`: truths that hold, fail with the likely mistake named, or do not apply; for our classes and a reader's own.

A reader's class stands in docs/truths.md, thirty lines of NumPy with a mistake. Start at `MISTAKES`, others in the same class.
"""

import math
import re
from pathlib import Path

import numpy as np
import pytest

from minigen import cli, ops
from minigen.models import FAMILIES, LISTED, MODELS
from minigen.models.flow import ActNorm, Flow, FlowConfig, Inverse
from minigen.models.vae import VAE
from minigen.truths import TRUTHS, Finding, SubjectError, Truth, check, subjects
from minigen.truths.checking import built_in

PAGE = (Path(__file__).parents[2] / "docs" / "truths.md").read_text(encoding="utf-8")
BUGGY = re.search(r"```python\n(# my_module.py\n.*?)```", PAGE, re.DOTALL)[1]  # as the page shows it
WRONG = "            x = x + np.sqrt(self.beta[t]) * rng.normal(x.shape)\n"
MY_MODULE = BUGGY.replace(WRONG, "            if t > 1:\n    " + WRONG)

MISTAKES = {  # the truth that notices: what is replaced, by what, and what is then said
    "ddpm-gaussian": [
        ("rng.integers(1, self.T + 1,", "rng.integers(1, self.T,", "t is drawn from 1..T-1: step T"),
        ("rng.integers(1, self.T + 1,", "rng.integers(0, self.T,", "t is drawn from 0..T-1"),
        ("np.sqrt(1 - a) * eps, t)", "(1 - a) * eps, t)", "the noise is scaled by its variance 1 - ᾱ"),
        ("np.sqrt(a) * x", "a * x", "the data are scaled by ᾱ where √ᾱ is meant"),
        ("a = self.alpha_bar[t]", "a = self.alpha_bar[t - 1]", "the schedule is off by one"),
        ("t) - eps) ** 2", "t) - x) ** 2", "compared with x_0"),
        (".mean()", ".mean() / 2", "a factor ½"),
        (".mean()", ".astype(np.float32).mean()", "does it compute in float32?"),
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


class InvertedWeights(VAE):
    def log_weights(self, x, k, rng):
        return -super().log_weights(x, k, rng)


class NoProposal(VAE):
    """log p(x|z) + log p(z) alone."""

    def log_weights(self, x, k, rng):
        logvar = self.encode(x)[1]
        q = logvar.shape[1]
        eps2 = ops.square(rng.normal((k, *logvar.shape), dtype=np.float64))  # the same points: sigma points come in turn
        return super().log_weights(x, k, rng) - 0.5 * (eps2 + logvar + math.log(2 * math.pi)).sum(axis=-1) + 0 * q


class NoJacobian(VAE):
    def log_weights(self, x, k, rng):
        return super().log_weights(x, k, rng) - 0.5 * self.encode(x)[1].sum(axis=1)


class MeanOfLogs(VAE):
    def log_prob_bound(self, x, k, rng, chunk=50):
        return self.log_weights(x, k, rng).data.mean(axis=0)


class NoLogK(VAE):
    def log_prob_bound(self, x, k, rng, chunk=50):
        return super().log_prob_bound(x, k, rng, chunk) + math.log(k)


class CutOff(VAE):
    def decode(self, z):
        return super().decode(z.detach())


class SigmaSquared(VAE):
    def elbo(self, x, rng):
        mu, logvar = self.encode(x)
        log_px = self.likelihood.log_prob(x, self.decode(mu + ops.exp(logvar) * rng.normal(mu.shape)))
        return log_px, log_px, log_px


@pytest.mark.parametrize(("mutant", "truth", "said"), [
    (InvertedWeights, "iwae-bounds", "the weights are inverted"),
    (NoProposal, "iwae-bounds", "log q(z|x) is left out"),
    (NoJacobian, "iwae-bounds", "it is the density of ε, not of z"),
    (MeanOfLogs, "iwae-bounds", "the mean of log w, where it must be the log of the mean"),
    (NoLogK, "iwae-bounds", "without - log k"),
    (CutOff, "pathwise", "no gradient comes through the sample"),
    (SigmaSquared, "pathwise", "the noise is multiplied by sigma²"),
])  # fmt: skip
def test_a_mistake_in_weights_or_gradients_is_named(mutant, truth, said):
    assert said in str(states(mutant, truth)[truth])


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


class PerDimensionInLogProb(Flow):
    """Σ_d (log N(z_d; 0, 1) + log |det|): the log-determinant broadcast against the dimensions, and then summed with them."""

    def log_prob(self, x):
        z, log_det = self.encode(x)
        per_dimension = -0.5 * ops.square(z) - 0.5 * math.log(2 * math.pi)  # (N, D)
        return (per_dimension + log_det.reshape(-1, 1)).sum(axis=1)


class MeanInLogProb(Flow):
    def log_prob(self, x):
        return super().log_prob(x) - 0.5 * self.encode(x)[1]


class OneConstant(Flow):
    def log_prob(self, x):
        return super().log_prob(x) + 0.5 * math.log(2 * math.pi)


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
    def forward(self, x):
        self.started[...] = 0
        return super().forward(x)


class KeepsItsSign(Inverse):
    def forward(self, z):
        x, log_det = super().forward(z)
        return x, -log_det


class AtTheWrongEnd(Inverse):
    def forward(self, z):
        return self.bijection.inverse(z), -self.bijection(z)[1]


class OnePosition(ActNorm):
    def forward(self, x):
        return super().forward(x)[0], self.log_scale.sum()


FLOW_MISTAKES = {
    WrongSign: ("flow-density", "the log-determinant has the wrong sign"),
    PerDimension: ("flow-density", "the log-determinant is added to each of the 2 dimensions"),
    PerDimensionInLogProb: ("flow-density", "log |det| is added to the log-density of each of the 2 dimensions"),
    MeanInLogProb: ("flow-density", "log |det| is averaged over the dimensions in log p"),
    OneConstant: ("flow-density", "½ log 2π once, where it must have it for each dimension"),
    NoConstant: ("flow-density", "log N(z; 0, I) has no ½ log 2π"),
    Subtracted: ("flow-density", "log |det| is subtracted where it must be added"),
    AnotherBase: ("flow-density", "another base in the sampler than in the density"),
    StartsAgain: ("actnorm", "every batch starts it again"),
    KeepsItsSign: ("iaf-maf", "the log-determinant keeps its sign"),
    AtTheWrongEnd: ("iaf-maf", "the log-determinant taken at the wrong end"),
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


@pytest.mark.parametrize(("mutant", "said"), [
    (PerDimensionInLogProb, "log |det| is added to the log-density of each of the 3 dimensions, and then summed"),
    (NoConstant, "must be"),
])  # fmt: skip
def test_a_mistake_shows_in_the_best_likelihood_too(mutant, said):
    verdict = states(mutant, "gaussian-mle")["gaussian-mle"]
    assert verdict.state == "fails"
    assert said in str(verdict)


@pytest.mark.parametrize(("name", "holding"), [
    ("realnvp", {"flow-density", "entropy-floor", "gaussian-mle", "density-sampler", "train-step"}),
    ("glow", {"dequantise", "train-step"}),
    ("minigen.models.flow:ActNorm", {"actnorm"}),
    ("minigen.models.flow:Inverse", {"iaf-maf"}),
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
    for name in (*LISTED, *FAMILIES):
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


def test_the_page_shows_what_is_printed(monkeypatch, tmp_path, capsys):
    assert BUGGY != MY_MODULE
    (tmp_path / "my_module.py").write_text(BUGGY, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["check", "my_module:MyDDPM"]) == 1
    printed = re.search(r"prints:\n\n```\n(.*?)```", PAGE, re.DOTALL)[1].splitlines()
    for shown, line in zip(printed, capsys.readouterr().out.splitlines(), strict=False):
        if "does not apply" in shown:
            break  # of which there are more with every truth
        assert shown == line


def test_the_page_lists_every_truth():
    for truth in TRUTHS.values():
        row = f"| `{truth.name}` | {truth.claim} | {truth.source} |"
        assert row in PAGE, f"docs/truths.md lacks the row {row}"


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
    small = Finding("x", 1 + 1e-7, 1.0, 1e-9, ((3.0, "tripled"),))
    assert small.mistake is None
    assert small.rounded
    assert not Finding("x", 2.1, 1.0, 1e-9).rounded
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
