"""The discriminator's loss with both penalties, and with spectral norm, beside PyTorch's double backward.

Skipped where PyTorch is not installed: see test_torch.py.
"""

import numpy as np
import pytest

from minigen import grad
from minigen.models.gan import DCGANConfig, dcgan
from minigen.random import Generator

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'minigen[peers]'")
F = torch.nn.functional

pytestmark = pytest.mark.peer

WEIGHTS = ("layers.0.weight", "layers.2.weight", "layers.5.weight")
LEARNED = (*WEIGHTS, "layers.0.bias", "layers.2.bias")  # the last bias has no gradient
REAL, FAKE = (Generator(seed).uniform((6, 12, 12, 1), -1, 1, dtype=np.float64) for seed in (1, 2))


def ours(**options):
    """The discriminator's state, its loss, and the gradients of what it learns, by name."""
    model = dcgan((12, 12, 1), DCGANConfig(channels=8, **options), Generator(0)).astype("float64")
    state = model.discriminator.state_dict()
    loss = model.discriminator_loss(REAL, FAKE, Generator(3)).total
    parameters = dict(model.discriminator.named_parameters())
    gradients = grad(loss, [parameters[name] for name in LEARNED])
    return state, loss.item(), {name: g.data for name, g in zip(LEARNED, gradients, strict=True)}


def tensors(state):
    return {name: torch.tensor(array, requires_grad=not name.endswith(".u")) for name, array in state.items()}


def nchw(x):
    return torch.tensor(x).permute(0, 3, 1, 2).contiguous()


def discriminator(p, x, weights):
    h = F.leaky_relu(F.conv2d(x, weights[0].permute(3, 2, 0, 1), p["layers.0.bias"], 2, 1), 0.2)
    h = F.leaky_relu(F.conv2d(h, weights[1].permute(3, 2, 0, 1), p["layers.2.bias"], 2, 1), 0.2)
    return (h.permute(0, 2, 3, 1).reshape(len(x), -1) @ weights[2] + p["layers.5.bias"])[:, 0]


def compare(p, loss, own_loss, own_gradients):
    assert abs(loss.item() - own_loss) < 1e-8
    for name, g in zip(LEARNED, torch.autograd.grad(loss, [p[n] for n in LEARNED]), strict=True):
        np.testing.assert_allclose(own_gradients[name], g.numpy(), atol=1e-8 * abs(g).max().item(), err_msg=name)


def test_both_penalties():
    state, own_loss, own_gradients = ours(loss="wgan-gp", gp=10.0, r1=0.7)
    p, real, fake = tensors(state), nchw(REAL), nchw(FAKE)
    u = torch.tensor(Generator(3).uniform((6, 1, 1, 1), dtype=np.float64))

    def slopes(x):
        x = x.clone().requires_grad_()
        logits = discriminator(p, x, [p[n] for n in WEIGHTS])
        return torch.autograd.grad(logits.sum(), x, create_graph=True)[0].flatten(1)

    logits = [discriminator(p, x, [p[n] for n in WEIGHTS]).mean() for x in (real, fake)]
    penalty = ((slopes(u * real + (1 - u) * fake).norm(dim=1) - 1) ** 2).mean()
    r1 = 0.5 * slopes(real).pow(2).sum(dim=1).mean()
    compare(p, logits[1] - logits[0] + 10 * penalty + 0.7 * r1, own_loss, own_gradients)


def test_spectral_norm():
    """An iteration for the real samples, and another one for the generated."""
    state, own_loss, own_gradients = ours(loss="hinge")
    p = tensors(state)

    def normed(name):
        matrix, u = p[name].reshape(-1, p[name].shape[-1]), p[name.replace("weight", "norm.u")]
        with torch.no_grad():
            v = F.normalize(matrix @ u, dim=0)
            u[...] = F.normalize(matrix.T @ v, dim=0)
        return p[name] / (v @ matrix @ u.clone())

    real, fake = (discriminator(p, nchw(x), [normed(n) for n in WEIGHTS]) for x in (REAL, FAKE))
    compare(p, F.relu(1 - real).mean() + F.relu(1 + fake).mean(), own_loss, own_gradients)
