"""The workloads: twelve of them, their losses and their steps, each written once for every library. Start at `VAEMLP`.

A library `lib` (ours.py, torch_peer.py, jax_peer.py) offers layers on images in its own memory layout, so equal work is what
all of them do: the same sums of products, from the same parameters, checked by equal losses (tests/benchmarks). Parameters and
data are NumPy arrays in PyTorch's layouts, (N, C, H, W) images, (out, in, kh, kw) weights; a library brings them into its own.

    weights(draw)             -> parameters by name, initialised as PyTorch does
    data(rng)                 -> arrays that stay the same for all steps
    loss(lib, p, data, noise) -> what one Adam step minimises. A workload with more than one update writes its own `step`

GFLOP counts two for each multiplication in matrix products and convolutions of a step, done densely, forward and backward,
without gradients for the data: the same nominal number for every library.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from .unet import time_features, unet, unet_weights
from .workload import Arrays, Draw, Flat, Workload

# ---- variational autoencoders


class VAEMLP(Workload):
    """784 - 400 - (20, 20) - 400 - 784."""

    name, batch, parameters, gflop = "vae_mlp", 128, 652_824, 0.420

    def weights(self, draw: Draw) -> None:
        draw.linear("in", 784, 400)
        draw.linear("mu", 400, 20)
        draw.linear("logvar", 400, 20)
        draw.linear("up", 20, 400)
        draw.linear("out", 400, 784)

    def data(self, rng: np.random.Generator) -> Arrays:
        return {"x": rng.random((self.batch, 784), np.float32)}

    def loss(self, lib: Any, p: dict, data: dict, noise: Any) -> Any:
        h = lib.linear(data["x"], p, "in", "relu")
        z, kl = lib.gaussian_code(lib.linear(h, p, "mu"), lib.linear(h, p, "logvar"), noise.normal((self.batch, 20)))
        logits = lib.linear(lib.linear(z, p, "up", "relu"), p, "out")
        return (lib.bce_sum(logits, data["x"]) + kl) / self.batch


class VAEConv(Workload):
    """Two convolutions down, two up, between them 256 - (32, 32) - 256."""

    name, batch, parameters, gflop = "vae_conv", 128, 1_700_609, 3.847
    flat: ClassVar[Flat] = {"in": ("in", (64, 7, 7)), "down": ("out", (64, 7, 7))}

    def weights(self, draw: Draw) -> None:
        draw.conv("c1", 1, 32, 4)
        draw.conv("c2", 32, 64, 4)
        draw.linear("in", 3136, 256)
        draw.linear("mu", 256, 32)
        draw.linear("logvar", 256, 32)
        draw.linear("up", 32, 256)
        draw.linear("down", 256, 3136)
        draw.transposed("t1", 64, 32, 4)
        draw.transposed("t2", 32, 1, 4)

    def loss(self, lib: Any, p: dict, data: dict, noise: Any) -> Any:
        h = lib.conv(data["x"], p, "c1", 2, 1, "relu")
        h = lib.conv(h, p, "c2", 2, 1, "relu")
        h = lib.linear(lib.flatten(h), p, "in", "relu")
        z, kl = lib.gaussian_code(lib.linear(h, p, "mu"), lib.linear(h, p, "logvar"), noise.normal((self.batch, 32)))
        h = lib.linear(lib.linear(z, p, "up", "relu"), p, "down", "relu")
        h = lib.transposed(lib.unflatten(h, (64, 7, 7)), p, "t1", 2, 1, "relu")
        logits = lib.transposed(h, p, "t2", 2, 1)
        return (lib.bce_sum(logits, data["x"]) + kl) / self.batch


# ---- adversarial networks


def generator_weights(draw: Draw) -> None:
    for name, inputs, outputs in (("g.1", 100, 256), ("g.2", 256, 128), ("g.3", 128, 64)):
        draw.transposed(name, inputs, outputs, 4, bias=False)
        draw.norm(f"{name}.norm", outputs)
    draw.transposed("g.4", 64, 1, 4)


def generate(lib: Any, p: dict, z: Any) -> Any:
    """z (N, 100, 1, 1) -> images 32 x 32."""
    h = z
    for name, stride, padding in (("g.1", 1, 0), ("g.2", 2, 1), ("g.3", 2, 1)):
        h = lib.batch_norm(lib.transposed(h, p, name, stride, padding), p, f"{name}.norm", "relu")
    return lib.tanh(lib.transposed(h, p, "g.4", 2, 1))


class DCGAN(Workload):
    """An update of the discriminator on real and generated images, and one of the generator."""

    name, batch, parameters, gflop = "dcgan", 64, 1_728_194, 24.03
    lr, betas = 2e-4, (0.5, 0.999)

    def weights(self, draw: Draw) -> None:
        generator_weights(draw)
        draw.conv("d.1", 1, 64, 4)
        for name, inputs, outputs in (("d.2", 64, 128), ("d.3", 128, 256)):
            draw.conv(name, inputs, outputs, 4, bias=False)
            draw.norm(f"{name}.norm", outputs)
        draw.conv("d.4", 256, 1, 4)

    def data(self, rng: np.random.Generator) -> Arrays:
        return {"x": rng.random((self.batch, 1, 32, 32), np.float32)}

    def judge(self, lib: Any, p: dict, x: Any) -> Any:
        h = lib.conv(x, p, "d.1", 2, 1, "leaky_relu")
        for name in ("d.2", "d.3"):
            h = lib.batch_norm(lib.conv(h, p, name, 2, 1), p, f"{name}.norm", "leaky_relu")
        return lib.conv(h, p, "d.4", 1, 0)

    def step(self, lib: Any, p: dict, data: dict, noise: Any) -> Any:
        z = noise.normal((self.batch, 100, 1, 1))
        fake, back = lib.pullback("g.", lambda p: generate(lib, p, z), p)

        def of_discriminator(p: dict) -> Any:
            return lib.bce_mean(self.judge(lib, p, data["x"]), 1.0) + lib.bce_mean(self.judge(lib, p, fake), 0.0)

        d_loss = lib.update("d.", of_discriminator, p)
        g_loss, g_fake = lib.value_and_input_grad(lambda x: lib.bce_mean(self.judge(lib, p, x), 1.0), fake)
        lib.update_from("g.", back, g_fake, p)
        return d_loss + g_loss


class WGANGP(Workload):
    """An update of the critic with the gradient penalty, whose gradient is a second derivative."""

    name, batch, parameters, gflop = "wgangp", 64, 1_727_810, 28.34
    lr, betas, trained = 1e-4, (0.0, 0.9), "d."

    def weights(self, draw: Draw) -> None:
        generator_weights(draw)
        for name, inputs, outputs in (("d.1", 1, 64), ("d.2", 64, 128), ("d.3", 128, 256), ("d.4", 256, 1)):
            draw.conv(name, inputs, outputs, 4)

    def data(self, rng: np.random.Generator) -> Arrays:
        return {"x": rng.random((self.batch, 1, 32, 32), np.float32)}

    def judge(self, lib: Any, p: dict, x: Any) -> Any:
        for name in ("d.1", "d.2", "d.3"):
            x = lib.conv(x, p, name, 2, 1, "leaky_relu")
        return lib.conv(x, p, "d.4", 1, 0)

    def loss(self, lib: Any, p: dict, data: dict, noise: Any) -> Any:
        fake = lib.constant(lambda: generate(lib, p, noise.normal((self.batch, 100, 1, 1))))
        share = noise.uniform((self.batch, 1, 1, 1))
        between = share * data["x"] + (1 - share) * fake
        g = lib.input_grad(lambda x: lib.sum(self.judge(lib, p, x)), between)
        penalty = lib.mean((lib.sqrt(lib.sum_of_squares(g)) - 1) ** 2)
        return lib.mean(self.judge(lib, p, fake)) - lib.mean(self.judge(lib, p, data["x"])) + 10 * penalty


# ---- normalizing flows


class RealNVP(Workload):
    """Eight affine couplings of points in the plane."""

    name, batch, parameters, gflop = "realnvp", 512, 136_208, 0.412

    def weights(self, draw: Draw) -> None:
        for i in range(8):
            for name, inputs, outputs in (("1", 1, 128), ("2", 128, 128), ("3", 128, 2)):
                draw.linear(f"{i}.{name}", inputs, outputs)

    def data(self, rng: np.random.Generator) -> Arrays:
        return {"a": rng.random((self.batch, 1), np.float32), "b": rng.random((self.batch, 1), np.float32)}

    def loss(self, lib: Any, p: dict, data: dict, noise: Any) -> Any:
        given, other = data["a"], data["b"]
        log_det: Any = 0.0
        for i in range(8):
            h = lib.linear(lib.linear(given, p, f"{i}.1", "relu"), p, f"{i}.2", "relu")
            raw, shift = lib.halves(lib.linear(h, p, f"{i}.3"))
            scale = lib.tanh(raw)
            other = other * lib.exp(scale) + shift
            log_det = log_det + lib.sum(scale)
            given, other = other, given
        nll = 0.5 * (lib.sum(given * given) + lib.sum(other * other)) - log_det
        return nll / self.batch + math.log(2 * math.pi)


class Glow(Workload):
    """Two levels of four steps: actnorm, an invertible 1x1 convolution, an affine coupling of 128 channels."""

    name, batch, parameters, gflop = "glow", 32, 216_528, 6.071

    def weights(self, draw: Draw) -> None:
        for level, c in enumerate((4, 8)):
            for k in range(4):
                at = f"{level}.{k}"
                draw.made[f"{at}.bias"] = np.zeros(c, np.float32)
                draw.made[f"{at}.logscale"] = np.zeros(c, np.float32)
                draw.made[f"{at}.mix"] = np.linalg.qr(draw.rng.standard_normal((c, c)))[0].astype(np.float32)
                draw.conv(f"{at}.1", c // 2, 128, 3)
                draw.conv(f"{at}.2", 128, 128, 1)
                draw.made[f"{at}.3.w"] = np.zeros((c, 128, 3, 3), np.float32)
                draw.made[f"{at}.3.b"] = np.zeros(c, np.float32)

    def data(self, rng: np.random.Generator) -> Arrays:
        x = rng.random((self.batch, 1, 28, 28), np.float32)
        return {"x": np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)))}

    def loss(self, lib: Any, p: dict, data: dict, noise: Any) -> Any:
        x, log_det, energy, side = data["x"], 0.0, 0.0, 32
        for level in range(2):
            x, side = lib.squeeze(x), side // 2
            for k in range(4):
                at = f"{level}.{k}"
                x = (x + lib.channels(p[f"{at}.bias"])) * lib.exp(lib.channels(p[f"{at}.logscale"]))
                x = lib.mix(x, p[f"{at}.mix"])
                per_pixel = lib.sum(p[f"{at}.logscale"]) + lib.log_abs_det(p[f"{at}.mix"])
                a, b = lib.halves(x)
                h = lib.conv(lib.conv(a, p, f"{at}.1", 1, 1, "relu"), p, f"{at}.2", 1, 0, "relu")
                raw, shift = lib.halves(lib.conv(h, p, f"{at}.3", 1, 1))
                scale = lib.sigmoid(raw + 2.0)
                x = lib.concat(a, b * scale + shift)
                log_det = log_det + side * side * self.batch * per_pixel + lib.sum(lib.log(scale))
            if level == 0:
                x, z = lib.halves(x)
                energy = energy + 0.5 * lib.sum(z * z)
        energy = energy + 0.5 * lib.sum(x * x)
        return (energy - log_det) / (self.batch * 1024) + 0.5 * math.log(2 * math.pi)


# ---- energy-based models


def energy_weights(draw: Draw) -> None:
    for name, inputs, outputs in (("c1", 1, 32), ("c2", 32, 64), ("c3", 64, 128), ("c4", 128, 128)):
        draw.conv(name, inputs, outputs, 4)
    draw.linear("l1", 512, 128)
    draw.linear("l2", 128, 1)


def energy(lib: Any, p: dict, x: Any) -> Any:
    for name, padding in (("c1", 3), ("c2", 1), ("c3", 1), ("c4", 1)):
        x = lib.conv(x, p, name, 2, padding, "silu")
    return lib.linear(lib.linear(lib.flatten(x), p, "l1", "silu"), p, "l2")


class Convnet(Workload):
    """The contrastive update of the energy-based model alone, on fixed images."""

    name, batch, parameters, gflop = "convnet", 64, 492_641, 4.144
    lr, betas = 1e-4, (0.0, 0.999)
    flat: ClassVar[Flat] = {"l1": ("in", (128, 2, 2))}

    def weights(self, draw: Draw) -> None:
        energy_weights(draw)

    def data(self, rng: np.random.Generator) -> Arrays:
        return {"both": rng.random((2 * self.batch, 1, 28, 28), np.float32)}

    def loss(self, lib: Any, p: dict, data: dict, noise: Any) -> Any:
        return self.contrast(lib, energy(lib, p, data["both"]), 0.1)

    def contrast(self, lib: Any, e: Any, weight: float) -> Any:
        real, fake = e[: self.batch], e[self.batch :]
        return lib.mean(real) - lib.mean(fake) + weight * lib.mean(e * e)


class EBM(Convnet):
    """Thirty Langevin steps on the images with the parameters fixed, then the contrastive update."""

    name, batch, parameters, gflop = "ebm", 64, 492_641, 45.92
    clip = 0.1

    def data(self, rng: np.random.Generator) -> Arrays:
        return {"x": rng.random((self.batch, 1, 28, 28), np.float32)}

    def step(self, lib: Any, p: dict, data: dict, noise: Any) -> Any:
        x = 2 * noise.uniform((self.batch, 1, 28, 28)) - 1
        for _ in range(30):
            x = lib.clip(x + 0.005 * noise.normal((self.batch, 1, 28, 28)), -1.0, 1.0)
            g = lib.input_grad(lambda x: lib.sum(energy(lib, lib.frozen(p), x)), x, create_graph=False)
            x = lib.clip(x - 10 * lib.clip(g, -0.03, 0.03), -1.0, 1.0)
        both = lib.concat_batch(data["x"], x)
        return lib.update("adam", lambda p: self.contrast(lib, energy(lib, p, both), 0.2), p)


# ---- diffusion


ALPHA_BAR = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))


class DDPM(Workload):
    """The noise that a U-Net of width 32 finds in images at random times."""

    name, batch, parameters, gflop = "ddpm", 32, 793_697, 26.54
    lr = 2e-4

    def weights(self, draw: Draw) -> None:
        unet_weights(draw)

    def loss(self, lib: Any, p: dict, data: dict, noise: Any) -> Any:
        t = noise.times(self.batch)
        alpha_bar = lib.xp.asarray(ALPHA_BAR)[t].reshape(-1, 1, 1, 1)
        eps = noise.normal((self.batch, 1, 28, 28))
        noisy = lib.constants(lib.xp.sqrt(alpha_bar)) * data["x"] + lib.constants(lib.xp.sqrt(1 - alpha_bar)) * eps
        error = unet(lib, p, noisy, lib.constants(time_features(lib.xp, t))) - eps
        return lib.mean(error * error)


class DDIM(DDPM):
    """Fifty steps of sampling sixteen images: no gradients."""

    name, batch, parameters, gflop = "ddim", 16, 793_697, 221.3
    samples = True

    def data(self, rng: np.random.Generator) -> Arrays:
        return {}

    def step(self, lib: Any, p: dict, data: dict, noise: Any) -> Any:
        x = noise.normal((self.batch, 1, 28, 28))
        for t in range(980, -1, -20):
            now, then = float(ALPHA_BAR[t]), float(ALPHA_BAR[t - 20]) if t >= 20 else 1.0
            features = lib.constants(time_features(lib.xp, np.full(self.batch, t)))
            eps = lib.run(lambda x, features: unet(lib, p, x, features), x, features)
            clean = lib.clip((x - math.sqrt(1 - now) * eps) / math.sqrt(now), -1.0, 1.0)
            eps = (x - math.sqrt(now) * clean) / math.sqrt(1 - now)
            x = math.sqrt(then) * clean + math.sqrt(1 - then) * eps
        return lib.mean(x * x)


# ---- autoregressive


class PixelCNN(Workload):
    """Seven gated blocks of masked convolutions with 64 features."""

    name, batch, parameters, gflop = "pixelcnn", 32, 553_537, 82.94

    def weights(self, draw: Draw) -> None:
        draw.conv("first", 1, 64, 7)
        for i in range(7):
            draw.conv(f"{i}.gate", 64, 128, 3)
            draw.conv(f"{i}.out", 64, 64, 1)
        draw.conv("h1", 64, 64, 1)
        draw.conv("h2", 64, 1, 1)

    def data(self, rng: np.random.Generator) -> Arrays:
        return {"x": (rng.random((self.batch, 1, 28, 28)) < 0.5).astype(np.float32)}

    def logits(self, lib: Any, p: dict, x: Any) -> Any:
        h = lib.masked(x, p, "first", sees_itself=False)
        for i in range(7):
            h = h + lib.conv(lib.gated(lib.masked(h, p, f"{i}.gate", sees_itself=True)), p, f"{i}.out", 1, 0)
        h = lib.conv(lib.relu(h), p, "h1", 1, 0, "relu")
        return lib.conv(h, p, "h2", 1, 0)

    def loss(self, lib: Any, p: dict, data: dict, noise: Any) -> Any:
        return lib.bce_mean(self.logits(lib, p, data["x"]), data["x"])


class PixelCNNSample(PixelCNN):
    """The first 56 pixels of 16 images, one after another: a fourteenth of a sample.

    Peers run the network for each pixel, as their users do. We keep what has been computed (models/cached_sampling.py); the
    pixels are the same.
    """

    name, batch, parameters, gflop = "pixelcnn_sample56", 16, 553_537, 775.6
    samples, pixels = True, 56

    def data(self, rng: np.random.Generator) -> Arrays:
        return {}

    def step(self, lib: Any, p: dict, data: dict, noise: Any) -> Any:
        u = noise.uniform((self.batch, 1, 28, 28))
        x = lib.sample_pixels(lambda x: self.logits(lib, p, x), p, u, self.pixels)
        return lib.mean(x * lib.constants(np.arange(784.0).reshape(1, 1, 28, 28)))  # tells which pixels are set


WORKLOADS: dict[str, Workload] = {
    w.name: w
    for w in (
        *(VAEMLP(), VAEConv(), DCGAN(), WGANGP(), RealNVP(), Glow(), Convnet(), EBM()),
        *(DDPM(), DDIM(), PixelCNN(), PixelCNNSample()),
    )
}
