"""Models, one file per family, each readable next to its paper. Start at vae.py; model.py is what they share.

    vae       the variational autoencoder
    flow      normalizing flows: what all share; coupling (RealNVP, splines), maf (MAF, IAF), glow (images) are the flows
    autoregressive   images pixel by pixel, what all of these share; pixels is what their outputs mean, cached_sampling how they
              sample fast; made, pixelcnn, gated_pixelcnn, pixelrnn are the networks (made has one for points too)
    ddpm      denoising diffusion; noise is its forward process, unet its network for images, probability_flow its density
"""

from .autoregressive import PixelByPixel, PixelConfig
from .coupling import AffineCoupling, Coupling, RealNVPConfig, SplineConfig, SplineCoupling
from .ddpm import DDPM, DDPM2dConfig, DDPMConfig
from .flow import ActNorm, Bijection, Chain, Flow, FlowConfig, Inverse, InvertibleLinear
from .gated_pixelcnn import GatedConfig, GatedPixelCNN
from .glow import GlowConfig, ImageFlow, Logit, MultiScale
from .made import MADE, MADE2dConfig, MADEConfig
from .maf import Autoregressive, MAFConfig, MaskedLinear, MaskedNetwork
from .model import CAPABILITIES, MODELS, Entry, Loss, Model, ModelConfig
from .pixelcnn import CausalConv, PixelCNN, PixelCNNConfig
from .pixelrnn import PixelRNN, PixelRNNConfig
from .pixels import Binary, LogisticMixture
from .vae import VAE, VAEConfig

LISTED = (  # the order in which MODELS has them
    *("vae", "vae-mlp"),
    *("realnvp", "spline", "maf", "iaf", "glow"),
    *("ddpm2d", "ddpm"),
    *("made2d", "made", "pixelcnn", "gated-pixelcnn", "pixelrnn"),
)
MODELS.update({name: MODELS.pop(name) for name in LISTED})

FAMILIES = {  # what the command line trains by the name of a family: the model for points, and the model for images
    "vae": ("vae-mlp", "vae"),
    "flow": ("realnvp", "glow"),
    "ddpm": ("ddpm2d", "ddpm"),
    "pixelcnn": ("made2d", "pixelcnn"),
}

__all__ = [
    "CAPABILITIES",
    "DDPM",
    "FAMILIES",
    "MADE",
    "MODELS",
    "VAE",
    "ActNorm",
    "AffineCoupling",
    "Autoregressive",
    "Bijection",
    "Binary",
    "CausalConv",
    "Chain",
    "Coupling",
    "DDPM2dConfig",
    "DDPMConfig",
    "Entry",
    "Flow",
    "FlowConfig",
    "GatedConfig",
    "GatedPixelCNN",
    "GlowConfig",
    "ImageFlow",
    "Inverse",
    "InvertibleLinear",
    "LogisticMixture",
    "Logit",
    "Loss",
    "MADE2dConfig",
    "MADEConfig",
    "MAFConfig",
    "MaskedLinear",
    "MaskedNetwork",
    "Model",
    "ModelConfig",
    "MultiScale",
    "PixelByPixel",
    "PixelCNN",
    "PixelCNNConfig",
    "PixelConfig",
    "PixelRNN",
    "PixelRNNConfig",
    "RealNVPConfig",
    "SplineConfig",
    "SplineCoupling",
    "VAEConfig",
]
