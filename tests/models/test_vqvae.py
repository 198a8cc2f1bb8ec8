"""The VQ-VAE: shapes, the codebook's care for codes that nobody uses, the order of the prior, training, and what it refuses.

That its gradient, its averages and its bound are right is proved by the truths, in tests/truths/test_quantised_truths.py.
"""

import math

import numpy as np
import pytest

from minigen import Tensor, no_grad
from minigen.data import load
from minigen.models import MODELS, VQVAE, Codebook, CodePrior
from minigen.models.vqvae import VQVAEConfig
from minigen.random import Generator
from minigen.truths import all_images


def small(shape=(8, 8, 1), **options):
    config = VQVAEConfig(**{"codes": 5, "dimension": 3, "channels": 4, **options})
    return MODELS["vqvae"].build(shape, config, Generator(0))


GRIDS = {(8, 8, 1): (4, 4), (28, 28, 1): (7, 7), (12, 8, 2): (6, 4), (32, 32, 3): (8, 8)}


@pytest.mark.parametrize(("shape", "grid"), GRIDS.items())
def test_shapes(shape, grid):
    model, rng = small(shape), Generator(1)
    x = model.preprocess(rng.uniform((6, *shape)), rng)
    assert model.grid == grid
    assert model.loss(x, rng).total.shape == ()
    assert model.codes(x).shape == (6, *grid)
    assert [t.shape for t in model.elbo(x, rng)] == [(6,)] * 3
    assert model.reconstruct(x).shape == x.shape
    assert model.sample(3, rng).shape == (3, *shape)
    (bound,) = model.estimators(1).values()
    np.testing.assert_array_equal(bound(x, rng), model.elbo(x, rng)[0].data)


def test_it_refuses_images_that_cannot_be_halved():
    with pytest.raises(ValueError, match=r"multiples of 4, not data of shape \(7, 8, 1\)"):
        small((7, 8, 1))
    with pytest.raises(ValueError, match="not data of shape"):
        small((2,))


def test_the_bound_is_below_the_sum_over_all_codes():
    """Of a tiny model with random parameters: log Σ_k p(x|k) p(k), from all 3⁴ codes."""
    model, rng = small((4, 4, 1), codes=3), Generator(1)
    x = model.preprocess(rng.uniform((6, 4, 4, 1)), rng)
    model.loss(x, rng)  # the codebook starts
    x = x.astype(np.float64)
    model.astype(np.float64).eval()
    grids = all_images((2, 2), 3).astype(np.int64)
    with no_grad():
        joint = [
            model.likelihood.log_prob(x, model.decode(np.broadcast_to(k, (6, 2, 2)))).data + model.log_prior(k[None]).data
            for k in grids
        ]
        bound = model.elbo(x, rng)[0].data
        prior = model.log_prior(grids).data
    log_p = np.logaddexp.reduce(joint, axis=0)
    assert math.isclose(np.exp(prior).sum(), 1, rel_tol=1e-12)
    assert (bound < log_p).all()
    assert (bound >= np.max(joint, axis=0) - 60).all()
    assert all(np.isclose(bound[i], np.array(joint)[:, i]).any() for i in range(6))  # one of the terms


def test_a_code_of_the_prior_depends_on_those_before_it_alone():
    prior = CodePrior(5, (3, 4), 8, Generator(0)).astype(np.float64)
    k = Generator(1).integers(0, 5, (1, 3, 4))
    base = prior(k).data[0].reshape(12, 5)
    seen = np.zeros((12, 12), bool)
    for j in range(12):
        other = k.copy().reshape(12)
        other[j] = (other[j] + 1) % 5
        seen[:, j] = (prior(other.reshape(1, 3, 4)).data[0].reshape(12, 5) != base).any(axis=1)
    assert not np.triu(seen).any()
    assert seen[1:, 0].sum() > 5
    assert np.diag(seen, -1).sum() == 11  # also from the row above: its last is the one before


def test_codes_that_are_not_used_start_again():
    rng = Generator(0)
    book = Codebook(4, 2, decay=0.5)
    z = rng.normal((100, 2))
    book.start(z, rng)
    book.vectors.data[3], book.sums.data[3] = 50, 50  # where nothing is
    for _ in range(6):
        _, k = book(Tensor(z))
        book.update(z, k, rng)
    assert (np.abs(book.vectors.data) < 5).all()
    assert book.perplexity(book(Tensor(z))[1]).item() > 3


def test_the_codebook_moves_in_training_only_and_is_part_of_the_state():
    model, rng = small(), Generator(1)
    x = model.preprocess(rng.uniform((6, 8, 8, 1)), rng)
    model.loss(x, rng)
    before = model.state_dict()
    model.eval()
    model.loss(x, rng)
    assert all((before[name] == array).all() for name, array in model.state_dict().items())
    model.train()
    model.loss(x, rng)
    assert (before["codebook.vectors"] != model.state_dict()["codebook.vectors"]).any()
    other = small()
    other.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(other.codes(x), model.codes(x))


def test_training_on_digits_uses_the_codebook_and_beats_independent_pixels():
    """Reconstructions at once, the prior's share more slowly: the bound is the sum of both."""
    digits = load("digits", "train").x
    model, rng = small(codes=32, dimension=8, channels=16), Generator(3)
    optimizers, terms = model.optimizers(), []
    for i in range(150):
        terms.append(model.train_step(digits[(100 * i) % 1400 :][:100], rng, optimizers))
    early, late = (({k: np.mean([t[k] for t in part]) for k in terms[0]}) for part in (terms[:10], terms[-20:]))
    assert late["reconstruction"] > early["reconstruction"] + 20
    assert late["elbo"] > early["elbo"] + 20
    assert late["perplexity"] > 8
    assert isinstance(model, VQVAE)
    images = model.sample(16, rng)
    assert 0.1 < images.mean() < 0.6
