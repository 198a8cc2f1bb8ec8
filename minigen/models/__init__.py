"""Models, one file per family, each readable next to its paper. Start at vae.py; model.py is what they share.

    vae       the variational autoencoder
    flow      normalizing flows: what all share; coupling (RealNVP, splines), maf (MAF, IAF), glow (images) are the flows
    gan       generative adversarial networks, on points and on images
    ebm       energy-based models; langevin is how their chains move, quadrature their partition function in the plane
    rbm       restricted Boltzmann machines
    ncsn      score matching at many levels of noise, sampled by annealed Langevin dynamics
    ddpm      denoising diffusion; noise is its forward process, unet its network for images, probability_flow its density
"""

from .coupling import AffineCoupling, Coupling, RealNVPConfig, SplineConfig, SplineCoupling
from .ddpm import DDPM, DDPM2dConfig, DDPMConfig
from .ebm import EBM, EBM2dConfig, EBMConfig
from .flow import ActNorm, Bijection, Chain, Flow, FlowConfig, Inverse, InvertibleLinear
from .gan import GAN, DCGANConfig, GAN2dConfig, GANConfig
from .glow import GlowConfig, ImageFlow, Logit, MultiScale
from .maf import Autoregressive, MAFConfig, MaskedLinear, MaskedNetwork
from .model import CAPABILITIES, MODELS, Diverged, Entry, Loss, Model, ModelConfig
from .ncsn import NCSN, NCSN2dConfig, NCSNConfig
from .rbm import RBM, AnnealedRBM, RBMConfig
from .vae import VAE, VAEConfig

LISTED = (  # the order in which MODELS has them
    *("vae", "vae-mlp", "gan2d", "dcgan", "realnvp", "spline", "maf", "iaf", "glow"),
    *("ebm2d", "ebm", "rbm", "ncsn2d", "ncsn", "ddpm2d", "ddpm"),
)
MODELS.update({name: MODELS.pop(name) for name in LISTED})

FAMILIES = {  # what the command line trains by the name of a family: the model for points, and the model for images
    "vae": ("vae-mlp", "vae"),
    "gan": ("gan2d", "dcgan"),
    "flow": ("realnvp", "glow"),
    "ebm": ("ebm2d", "ebm"),
    "ddpm": ("ddpm2d", "ddpm"),
}

__all__ = [
    "CAPABILITIES",
    "DDPM",
    "EBM",
    "FAMILIES",
    "GAN",
    "MODELS",
    "NCSN",
    "RBM",
    "VAE",
    "ActNorm",
    "AffineCoupling",
    "AnnealedRBM",
    "Autoregressive",
    "Bijection",
    "Chain",
    "Coupling",
    "DCGANConfig",
    "DDPM2dConfig",
    "DDPMConfig",
    "Diverged",
    "EBM2dConfig",
    "EBMConfig",
    "Entry",
    "Flow",
    "FlowConfig",
    "GAN2dConfig",
    "GANConfig",
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
    "NCSN2dConfig",
    "NCSNConfig",
    "RBMConfig",
    "RealNVPConfig",
    "SplineConfig",
    "SplineCoupling",
    "VAEConfig",
]
