"""Models, one file per family, each readable next to its paper. Start at vae.py; model.py is what they share.

    vae       the variational autoencoder
    flow      normalizing flows: what all share; coupling (RealNVP, splines), maf (MAF, IAF), glow (images) are the flows
    ddpm      denoising diffusion; noise is its forward process, unet its network for images, probability_flow its density
"""

from .coupling import AffineCoupling, Coupling, RealNVPConfig, SplineConfig, SplineCoupling
from .ddpm import DDPM, DDPM2dConfig, DDPMConfig
from .flow import ActNorm, Bijection, Chain, Flow, FlowConfig, Inverse, InvertibleLinear
from .glow import GlowConfig, ImageFlow, Logit, MultiScale
from .maf import Autoregressive, MAFConfig, MaskedLinear, MaskedNetwork
from .model import CAPABILITIES, MODELS, Entry, Loss, Model, ModelConfig
from .vae import VAE, VAEConfig

LISTED = ("vae", "vae-mlp", "realnvp", "spline", "maf", "iaf", "glow", "ddpm2d", "ddpm")  # the order in which MODELS has them
MODELS.update({name: MODELS.pop(name) for name in LISTED})

FAMILIES = {  # what the command line trains by the name of a family: the model for points, and the model for images
    "vae": ("vae-mlp", "vae"),
    "flow": ("realnvp", "glow"),
    "ddpm": ("ddpm2d", "ddpm"),
}

__all__ = [
    "CAPABILITIES",
    "DDPM",
    "FAMILIES",
    "MODELS",
    "VAE",
    "ActNorm",
    "AffineCoupling",
    "Autoregressive",
    "Bijection",
    "Chain",
    "Coupling",
    "DDPM2dConfig",
    "DDPMConfig",
    "Entry",
    "Flow",
    "FlowConfig",
    "GlowConfig",
    "ImageFlow",
    "Inverse",
    "InvertibleLinear",
    "Logit",
    "Loss",
    "MAFConfig",
    "MaskedLinear",
    "MaskedNetwork",
    "Model",
    "ModelConfig",
    "MultiScale",
    "RealNVPConfig",
    "SplineConfig",
    "SplineCoupling",
    "VAEConfig",
]
