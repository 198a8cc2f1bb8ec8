"""Models, one file per family, each readable next to its paper. Start at vae.py; model.py is what they share.

    vae       the variational autoencoder; vqvae is one with discrete codes
    flow      normalizing flows: what all share; coupling (RealNVP, splines), maf (MAF, IAF), glow (images) are the flows
    gan       generative adversarial networks, on points and on images
    ebm       energy-based models; langevin is how their chains move, quadrature their partition function in the plane
    rbm       restricted Boltzmann machines
    ncsn      score matching at many levels of noise, sampled by annealed Langevin dynamics
    autoregressive   images pixel by pixel, what all of these share; pixels is what their outputs mean, cached_sampling how they
              sample fast; made, pixelcnn, gated_pixelcnn, pixelrnn are the networks (made has one for points too)
    ddpm      denoising diffusion; noise is its forward process, unet its network for images, probability_flow its density,
              inverse_problems what it makes of measurements
"""

from .autoregressive import PixelByPixel, PixelConfig
from .coupling import AffineCoupling, Coupling, RealNVPConfig, SplineConfig, SplineCoupling
from .ddpm import DDPM, DDPM2dConfig, DDPMConfig, UNetDDPMConfig
from .ebm import EBM, EBM2dConfig, EBMConfig
from .flow import ActNorm, Bijection, Chain, Flow, FlowConfig, Inverse, InvertibleLinear
from .gan import GAN, DCGANConfig, GAN2dConfig, GANConfig
from .gated_pixelcnn import GatedConfig, GatedPixelCNN
from .glow import GlowConfig, ImageFlow, Logit, MultiScale
from .inverse_problems import LinearInverse, deblurring, inpainting, super_resolution
from .made import MADE, MADE2dConfig, MADEConfig
from .maf import Autoregressive, MAFConfig, MaskedLinear, MaskedNetwork
from .model import CAPABILITIES, MODELS, Diverged, Entry, Loss, Model, ModelConfig
from .ncsn import NCSN, NCSN2dConfig, NCSNConfig
from .pixelcnn import CausalConv, PixelCNN, PixelCNNConfig
from .pixelrnn import PixelRNN, PixelRNNConfig
from .pixels import Binary, LogisticMixture
from .rbm import RBM, AnnealedRBM, RBMConfig
from .vae import VAE, VAEConfig
from .vqvae import VQVAE, Codebook, CodePrior, VQVAEConfig

LISTED = (  # the order in which MODELS has them
    *("vae", "vae-mlp", "vqvae", "gan2d", "dcgan", "realnvp", "spline", "maf", "iaf", "glow"),
    *("ebm2d", "ebm", "rbm", "ncsn2d", "ncsn", "ddpm2d", "ddpm"),
    *("made2d", "made", "pixelcnn", "gated-pixelcnn", "pixelrnn"),
)
MODELS.update({name: MODELS.pop(name) for name in LISTED})

FAMILIES = {  # what the command line trains by the name of a family: the model for points, and the model for images
    "vae": ("vae-mlp", "vae"),
    "gan": ("gan2d", "dcgan"),
    "flow": ("realnvp", "glow"),
    "ebm": ("ebm2d", "ebm"),
    "ddpm": ("ddpm2d", "ddpm"),
    "pixelcnn": ("made2d", "pixelcnn"),
}

__all__ = [
    "CAPABILITIES",
    "DDPM",
    "EBM",
    "FAMILIES",
    "GAN",
    "MADE",
    "MODELS",
    "NCSN",
    "RBM",
    "VAE",
    "VQVAE",
    "ActNorm",
    "AffineCoupling",
    "AnnealedRBM",
    "Autoregressive",
    "Bijection",
    "Binary",
    "CausalConv",
    "Chain",
    "CodePrior",
    "Codebook",
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
    "GatedConfig",
    "GatedPixelCNN",
    "GlowConfig",
    "ImageFlow",
    "Inverse",
    "InvertibleLinear",
    "LinearInverse",
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
    "NCSN2dConfig",
    "NCSNConfig",
    "PixelByPixel",
    "PixelCNN",
    "PixelCNNConfig",
    "PixelConfig",
    "PixelRNN",
    "PixelRNNConfig",
    "RBMConfig",
    "RealNVPConfig",
    "SplineConfig",
    "SplineCoupling",
    "UNetDDPMConfig",
    "VAEConfig",
    "VQVAEConfig",
    "deblurring",
    "inpainting",
    "super_resolution",
]
