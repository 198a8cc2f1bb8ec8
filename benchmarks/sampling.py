"""How much faster autoregressive models sample with cached activations than by the definition: CPU time, rounds interleaved.

    python -m benchmarks.sampling [--model pixelcnn] [--images 64] [--rounds 3] [--pixels 56] [--threads 1]

Both draw 28 x 28 images from an untrained model of the default size, whose cost is that of a trained one. The sampler by the
definition takes as long for each pixel, so it is timed on the first `--pixels` of them; the cached one on all. Start at `main`.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable

import numpy as np

from minigen import no_grad
from minigen.autograd.kernels import jit
from minigen.models import MODELS
from minigen.models.autoregressive import PixelByPixel, draw_in_order
from minigen.random import Generator

SHAPE = (28, 28, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Sampling of autoregressive models: cached against by the definition.")
    parser.add_argument("--model", default="pixelcnn", choices=("pixelcnn", "gated-pixelcnn", "pixelrnn"))
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pixels", type=int, default=56)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    jit.set_threads(args.threads)
    entry = MODELS[args.model]
    model = entry.build(SHAPE, entry.config(), Generator(0))
    measure(model, args.images, 1)  # compiles
    ratios = []
    for _ in range(args.rounds):
        slow, fast = measure(model, args.images, args.pixels)
        ratios.append(slow / fast)
        cost = f"{slow:.1f} CPU-seconds by the definition, {fast:.3f} cached"
        print(f"{args.model}, {args.images} images: {cost}: {ratios[-1]:.0f}x")
    print(f"median {statistics.median(ratios):.0f}x")


def measure(model: PixelByPixel, images: int, pixels: int) -> tuple[float, float]:
    """CPU-seconds for `images` whole images: by the definition, extrapolated from the first pixels, and cached."""
    whole = math.prod(SHAPE)
    first = np.arange(whole) < pixels
    by_definition = seconds(model, draw_in_order, images, ~first) * whole / pixels
    return by_definition, seconds(model, model.draw, images, np.zeros(whole, bool))


def seconds(model: PixelByPixel, draw: Callable, images: int, known: np.ndarray) -> float:
    x = np.zeros((images, known.size), np.float32)
    u = Generator(0).uniform(x.shape, dtype=np.float64)
    start = time.process_time()
    with no_grad():
        draw(model, x, known, u, None)
    return time.process_time() - start


if __name__ == "__main__":
    main()
