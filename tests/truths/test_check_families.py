"""The truths of energies and of autoregressive models, as `minigen check` runs them: they hold, and mistakes are caught."""

import numpy as np
import pytest

from minigen import Tensor, ops
from minigen.models import EBM, MODELS, NCSN, RBM, LogisticMixture, Loss
from minigen.models.autoregressive import PixelByPixel
from minigen.truths import TRUTHS, check, subjects
from minigen.truths.checking import built_in

HOLDING = {
    "ebm2d": {"ula"},  # entropy-floor holds too, and takes longer
    "rbm": {"rbm-z"},
    "ncsn2d": {"denoising-score"},
    "made": {"ar-sum", "causal", "ar-sampler"},
    "pixelcnn": {"ar-sum", "causal", "ar-sampler"},
    "minigen.models:LogisticMixture": {"logistic-mixture"},
    "minigen.nn:SpectralNorm": {"spectral-norm"},
}


def verdicts(cls, *names):
    return {v.truth.name: v for v in check(cls, [TRUTHS[name] for name in names])}


@pytest.mark.parametrize("name", HOLDING)
def test_they_hold(name):
    for _, cls in subjects(name):
        found = verdicts(cls, *HOLDING[name])
        assert {n: v.state for n, v in found.items()} == dict.fromkeys(HOLDING[name], "holds"), [str(v) for v in found.values()]


class Cold(EBM):
    temperature = 0.5


class Uphill(EBM):
    def energy(self, x):
        return -super().energy(x)


class WithoutTheHalf(NCSN):
    def loss(self, x, rng):
        loss = super().loss(x, rng)
        return loss._replace(total=2 * loss.total)


class WithoutItsWeight(NCSN):
    """Every level as steep as its score: no λ(σ) = σ²."""

    def loss(self, x, rng):
        i = rng.integers(0, len(self.sigmas), (len(x),))
        sigma = self.sigmas[i][:, None]
        n = rng.normal(x.shape, dtype=x.dtype)
        error = ops.square((self._scaled_score(x + sigma * n, i) + n) / sigma)
        return Loss(0.5 * error.mean(), {})


class NoSoftplus(RBM):
    def energy(self, x):
        v = (x if isinstance(x, Tensor) else Tensor(x)).reshape(len(x), -1)
        return -(v * self.visible_bias).sum(axis=1) - ops.linear(v, self.weight, self.hidden_bias).sum(axis=1)


class HighIsLikely(RBM):
    def energy(self, x):
        return -super().energy(x)


class TwiceTheBias(RBM):
    def energy(self, x):
        v = (x if isinstance(x, Tensor) else Tensor(x)).reshape(len(x), -1)
        return super().energy(x) - (v * self.visible_bias).sum(axis=1)


class Narrow(LogisticMixture):
    """The last level does not reach to infinity."""

    def log_levels(self, k, output):
        return super().log_levels(k, output) - 0.01 * (k == k.max())


class Unnormalised(PixelByPixel):
    def log_prob(self, x, y=None):
        return super().log_prob(x, y) + 0.01


class SeesItself(PixelByPixel):
    """A mask B in the first layer."""

    def __init__(self, model):
        super().__init__(lambda x, y=None: model.network(x, y) + 0.1 * x, model.pixels, model.data_shape, model.config)


class Backwards(PixelByPixel):
    def sample(self, n, rng, y=None):
        return super().sample(n, rng, y)[:, ::-1, ::-1]


MISTAKES = [
    (Cold, "ula", "the noise is √η where it must be √(2η): temperature ½"),
    (Uphill, "ula", "and must be"),
    (WithoutTheHalf, "denoising-score", "the factor ½ is left out"),
    (WithoutItsWeight, "denoising-score", "the levels have no weight σ²"),
    (TwiceTheBias, "rbm-z", "the visible bias counts twice in F"),
    (NoSoftplus, "rbm-z", "the hidden units enter F without their softplus"),
    (HighIsLikely, "rbm-z", "low must be likely"),
    (Narrow, "logistic-mixture", "the first and the last level"),
    (Unnormalised, "ar-sum", "Σ p(x) over all images"),
    (SeesItself, "causal", "largest slope of an output in its own pixel"),
    (Backwards, "ar-sampler", "pixels drawn in another order"),
]


@pytest.mark.parametrize(("mutant", "truth", "said"), MISTAKES, ids=[m[0].__name__ for m in MISTAKES])
def test_mistakes_are_caught(mutant, truth, said):
    if issubclass(mutant, PixelByPixel):
        own = built_in(MODELS["made"]).example_images

        def example(rng):
            model = own(rng)
            made = mutant(model) if mutant is SeesItself else mutant(model.network, model.pixels, (3, 4, 1), model.config)
            made.eval()
            return made

        mutant.example_images = staticmethod(example)
    with np.errstate(all="ignore"):
        verdict = verdicts(mutant, truth)[truth]
    assert verdict.state == "fails"
    assert said in str(verdict)
