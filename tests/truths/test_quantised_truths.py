"""Truths vq and vq-bound: they hold for the VQ-VAE, and mistakes in it are caught, and named."""

import pytest
from planted import plant

from minigen.models import VQVAE, Codebook
from minigen.truths import TRUTHS, check


def verdict(cls, truth):
    (found,) = check(cls, [TRUTHS[truth]])
    return found


@pytest.mark.parametrize(("cls", "truth"), [(Codebook, "vq"), (VQVAE, "vq-bound")])
def test_they_hold(cls, truth):
    found = verdict(cls, truth)
    assert found.state == "holds", str(found)


MISTAKES = {  # what it is: the truth, where it is made, what is replaced, by what, and what is then said
    "no straight-through": ("vq", Codebook, "forward", "(z - z.detach()) + ", "0 * z + ", "does not go straight through"),
    "z for z_q": ("vq", Codebook, "forward", "(z - z.detach()) + self.vectors.data[k]", "z", "difference from the nearest"),
    "twice": ("vq", Codebook, "forward", "(z - z.detach())", "2 * (z - z.detach())", "it comes through twice"),
    "the farthest": ("vq", Codebook, "nearest", ".argmin(", ".argmax(", "not those of the nearest"),
    "no square": ("vq", Codebook, "nearest", "(e * e)", "20 * (e[:, :1] + 0 * e)", "not those of the nearest"),
    "no memory": ("vq", Codebook, "update", "self.decay\n", "0.0\n", "jump to the means of the batch"),
    "nothing is moved": ("vq", Codebook, "update", "self.decay\n", "1.0\n", "the vectors do not move"),
    "the decay the wrong way": ("vq", Codebook, "update", "self.decay\n", "1 - self.decay\n", "γ and 1 - γ are exchanged"),
    "averages of vectors": (
        "vq", Codebook, "update",
        "self._set(np.where(rare, 1, counts), np.where(rare[:, None], fresh, sums))",
        "self._set(self.counts.data, (keep * self.vectors.data + (1 - keep) * total / n[:, None]) * self.counts.data[:, None])",
        "the vectors are averaged, where their sums and counts must be",
    ),
    "the entropy": ("vq", Codebook, "perplexity", "np.exp(", "(", "it is the entropy, not its exponential"),
    "bits for nats": ("vq", Codebook, "perplexity", "np.exp(", "np.exp2(", "2^H, for H in nats"),
    "no prior": ("vq-bound", VQVAE, "elbo", "log_px + log_pk,", "log_px,", "the prior is left out"),
    "the prior's sign": ("vq-bound", VQVAE, "elbo", "log_px + log_pk,", "log_px - log_pk,", "log p(k) has the wrong sign"),
    "a mean over the grid": ("vq-bound", VQVAE, "log_prior", ".sum(", ".mean(", "log p(k) is averaged over the grid"),
    "a uniform prior": (
        "vq-bound", VQVAE, "elbo",
        "self.log_prior(k)\n",
        "-k[0].size * np.log(self.config.codes) + 0 * self.log_prior(k)\n",
        "the prior is taken for uniform",
    ),
    "no commitment": ("vq-bound", VQVAE, "loss", "self.config.commitment", "0", "there is no commitment"),
    "no weight": ("vq-bound", VQVAE, "loss", "self.config.commitment", "1", "the commitment has no weight"),
    "pushed away": ("vq-bound", VQVAE, "loss", "self.config.commitment", "-self.config.commitment", "pushes the encoder away"),
    "a mean over vectors": ("vq-bound", VQVAE, "loss", ".sum(axis=(1, 2, 3))", ".mean(axis=(1, 2, 3))", "is averaged over"),
    "cut at the choice": ("vq-bound", VQVAE, "loss", "self.decoder(z_q)", "self.decoder(z_q.detach())", "only the commitment"),
    "codes all at once": (
        "vq-bound", VQVAE, "sample",
        "self.prior(k).data",
        "self.prior(0 * k).data",
        "of the codes of samples",
    ),
    "uniform codes": ("vq-bound", VQVAE, "sample", "logits - logits.max", "0 * logits - 0 * logits.max", "codes of samples"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named(mistake, monkeypatch):
    truth, owner, name, text, new, said = MISTAKES[mistake]
    plant(monkeypatch, owner, name, text, new)
    found = verdict(owner, truth)
    assert found.state == "fails"
    assert said in str(found)
