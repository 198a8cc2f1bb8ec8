"""Truths: analytic facts that a correct model meets and a wrong one does not.

    for verdict in check(MyVAE, TRUTHS.values()):
        print(verdict)

Start at the table TRUTHS, then at vae.py, whose truths are checked on a linear VAE. checking.py runs them, and finds the class
that a name means. A row of the table says what a class must have to be checked; docs/truths.md tells it in words.

    vae, ddpm, density     checks of a class, which give findings: values beside those that they must have
    linear, diffusion, flow, gradients     the closed forms and tools that they rest on
"""

from . import ddpm, density, vae
from .checking import SubjectError, Verdict, check, subjects
from .diffusion import FinitePoints, GaussianData
from .flow import (
    bijection_errors,
    bits_per_dim,
    cross_entropy,
    gaussian_mle,
    log_det_by_differences,
    moments,
    on_grid,
    total_probability,
)
from .gradients import reparameterised, score_function
from .linear import Ppca, autoencoder_error
from .truth import Finding, SigmaPoints, Truth

VAE = ("encoder", "decoder", "likelihood", "data_shape", "config")  # how the constructors of classes begin
DDPM = ("network", "data_shape", "config")

TRUTHS = {
    truth.name: truth
    for truth in (
        Truth(
            "linear-vae",
            "the best ELBO of a linear VAE is the maximum log-likelihood of probabilistic PCA",
            "Lucas et al. 2019, arXiv 1911.02469, theorem 1",
            ("elbo", "loss", "astype"),
            vae.linear_vae,
            made_of=VAE,
            mistakes="a KL that is not summed over the code or has a hidden weight, a missing ½ log 2π, or a mean for a sum",
        ),
        Truth(
            "iwae-bounds",
            "E[w] = p(x); with the exact posterior every weight is p(x); the bounds rise to log p(x)",
            "Burda et al. 2016, arXiv 1509.00519, theorem 1",
            ("log_weights", "log_prob_bound", "astype"),
            vae.iwae_bounds,
            made_of=VAE,
            mistakes="log q(z|x) with the wrong sign or without its log-variance, or a mean of logarithms for log of a mean",
        ),
        Truth(
            "pathwise",
            "reparameterised gradients of E[z²] are 2 mu, and sigma² for log sigma²",
            "Kingma & Welling 2014, arXiv 1312.6114, section 2.4",
            ("elbo",),
            vae.pathwise,
            made_of=VAE,
            mistakes="the sample is cut off from mu and sigma (by detach, for instance), or sigma is taken for its square",
        ),
        Truth(
            "ddpm-gaussian",
            "on Gaussian data the best network has the loss mean_t of the variance that is left",
            "Ho et al. 2020, arXiv 2006.11239, eq. 14, for Gaussian data",
            ("loss", "denoise"),
            ddpm.ddpm_gaussian,
            made_of=DDPM,
            mistakes="what the network is compared with, the schedule, or which t are drawn",
        ),
        Truth(
            "ddpm-vlb",
            "with the best mean the variational bound is the entropy, plus what the prior and the variances cost",
            "Ho et al. 2020, arXiv 2006.11239, eqs. 5-8",
            ("log_prob_bound", "denoise"),
            ddpm.ddpm_vlb,
            made_of=DDPM,
            mistakes="a term of the bound (L_T, L_t or L_0), a mean for a sum over t, or the KL the other way round",
        ),
        Truth(
            "sampler-std",
            "on Gaussian data the standard deviation of samples follows a linear recursion",
            "Ho et al. 2020, arXiv 2006.11239, alg. 2; Song et al. 2021, arXiv 2010.02502, eq. 12",
            ("sample", "denoise"),
            ddpm.sampler_std,
            made_of=DDPM,
            mistakes="the posterior mean, the first or last step, the time that the network is told, or the steps of a subset",
        ),
        Truth(
            "pf-ode",
            "the likelihood along the probability-flow ODE is the exact one",
            "Song et al. 2021, arXiv 2011.13456, eqs. 13, 39",
            ("log_prob", "denoise"),
            ddpm.pf_ode,
            made_of=DDPM,
            mistakes="g in place of g², the factor ½, ε for the score, or the sign of the trace",
        ),
        Truth(
            "memorise",
            "with a few points for data, DDIM samples are these points",
            "De Bortoli 2022, arXiv 2208.05314; the best denoiser is a softmax mean of the points",
            ("sample", "denoise"),
            ddpm.memorise,
            made_of=DDPM,
            mistakes="the DDIM step: ᾱ of this step for that of the one before, or a noise term that is not there",
        ),
        Truth(
            "ddim-eta1",
            "DDIM with eta = 1 is ancestral sampling with the small variance",
            "Song et al. 2021, arXiv 2010.02502, sec. 4.1",
            ("sample", "denoise"),
            ddpm.ddim_eta1,
            made_of=DDPM,
            mistakes="σ² = η² β̃_t, which the coefficient of ε must make room for: √(1 - ᾱ_{t-1} - σ²)",
        ),
        Truth(
            "param-round-trip",
            "ε, x_0 and v say the same of x_t",
            "Salimans & Ho 2022, arXiv 2202.00512, sec. 4",
            ("denoise",),
            ddpm.param_round_trip,
            made_of=DDPM,
            mistakes="v = √ᾱ ε - √(1 - ᾱ) x_0: a sign, or its two parts exchanged",
        ),
        Truth(
            "flow-density",
            "the density is a density, the log-determinant that of the Jacobian, and samples follow it",
            "Papamakarios et al. 2021, arXiv 1912.02762, eq. 5",
            ("encode", "log_prob", "sample", "example"),
            density.flow_density,
            mistakes="a log-determinant, an inverse that is none, or another base in the sampler than in the density",
        ),
        Truth(
            "entropy-floor",
            "no density has a cross-entropy with the data below their entropy, also when it is trained to",
            "Gibbs' inequality: E[-log p] = H(data) + KL(data ‖ p)",
            ("log_prob", "train_step", "optimizers", "example"),
            density.entropy_floor,
            mistakes="log p is that of no normalised density: a constant, a log-determinant or log Z is missing",
        ),
        Truth(
            "gaussian-mle",
            "a linear flow's best likelihood is that of the Gaussian with the data's covariance",
            "the maximum-likelihood fit: ½ log det(2πe S)",
            ("log_prob", "loss", "encode"),
            density.linear_flow,
            made_of=("bijection", "data_shape", "config"),
            mistakes="below it, a term of the density is missing; above it, the training does not reach all parameters",
        ),
        Truth(
            "actnorm",
            "the first batch leaves with mean 0 and variance 1, and log |det| counts every position",
            "Kingma & Dhariwal 2018, arXiv 1807.03039, sec. 3.1",
            ("forward", "inverse"),
            density.actnorm,
            made_of=("channels",),
            mistakes="the axes of the mean, a standard deviation for its logarithm, or a start at every batch",
        ),
        Truth(
            "iaf-maf",
            "a map turned round has the old one's outputs for inputs, and minus its log-determinant there",
            "Kingma et al. 2016, arXiv 1606.04934; Papamakarios et al. 2017, arXiv 1705.07057, sec. 3.4",
            ("forward", "inverse"),
            density.turned_round,
            made_of=("bijection",),
            mistakes="the log-determinant taken at the wrong end, or its sign",
        ),
        Truth(
            "dequantise",
            "a uniform density gives log2(levels) bits per value, whatever the image",
            "Theis et al. 2016, arXiv 1511.01844, sec. 3.1",
            ("elbo", "preprocess", "sample"),
            density.dequantise,
            made_of=("bijection", "dequantiser", "data_shape", "config"),
            mistakes="255 for 256 levels, or the Jacobian of the scale",
        ),
    )
}

__all__ = [
    "TRUTHS",
    "Finding",
    "FinitePoints",
    "GaussianData",
    "Ppca",
    "SigmaPoints",
    "SubjectError",
    "Truth",
    "Verdict",
    "autoencoder_error",
    "bijection_errors",
    "bits_per_dim",
    "check",
    "cross_entropy",
    "gaussian_mle",
    "log_det_by_differences",
    "moments",
    "on_grid",
    "reparameterised",
    "score_function",
    "subjects",
    "total_probability",
]
