"""Basis functions of bond lengths and bond angles."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.special import spherical_jn
from torch import nn

if TYPE_CHECKING:
    from matris.model.config import ModelConfig

COSINE_SCALE = 1 - 1e-6
"""Factor of a cosine that keeps the derivative of acos finite at 0° and 180°."""


def envelope(x: torch.Tensor, exponent: int) -> torch.Tensor:
    """
    Polynomial envelope of DimeNet (Gasteiger et al., arXiv 2003.03123, eq. 8), without the factor 1/x.

    u(x) = 1 − (p+1)(p+2)/2 xᵖ + p(p+2) xᵖ⁺¹ − p(p+1)/2 xᵖ⁺² for x < 1, and 0 for x ≥ 1.

    Parameters
    ----------
    x
        Length over cutoff, any shape.
    exponent
        p.
    """
    p = float(exponent)
    power = x**exponent
    u = 1 - power * ((p + 1) * (p + 2) / 2 - x * (p * (p + 2) - x * (p * (p + 1) / 2)))
    return torch.where(x < 1, u, torch.zeros_like(u))


def positive_envelope(x: torch.Tensor, exponent: int) -> torch.Tensor:
    """
    Compute the polynomial of `envelope` in factors: u(x) = (1 − x)³ Σ_{k<p} (k+1)(k+2)/2 xᵏ for x < 1, 0 for x ≥ 1.

    The terms of `envelope` cancel near x = 1, and in float32 the result can be −3e-6. Here it is never negative, and
    correct to a relative error of rounding, as weights need it. u, u′ and u″ vanish at x = 1 for any p; u‴ jumps. Near
    x = 0 the function is 1 − O(xᵖ).

    Parameters
    ----------
    x
        Length over cutoff, any shape.
    exponent
        p.

    Examples
    --------
    >>> x = torch.tensor([0.5, 0.9, 1.0, 1.5])
    >>> torch.allclose(positive_envelope(x, 8), envelope(x, 8), atol=1e-5), float(positive_envelope(x, 8)[2])
    (True, 0.0)
    """
    series = torch.full_like(x, exponent * (exponent + 1) / 2)
    for k in range(exponent - 2, -1, -1):
        series = series * x + (k + 1) * (k + 2) / 2
    rest = (1 - x).clamp(min=0)
    return rest * rest * rest * series


class BesselBasis(nn.Module):
    """
    b_n(r) = √(2/r_c) sin(w_n r/r_c)/r · u(r/r_c), with frequencies w_n that are initialised to nπ.

    Parameters
    ----------
    n
        Number of functions.
    cutoff
        r_c (Å).
    exponent
        Exponent of the envelope u.
    learnable
        Whether the frequencies w_n are trained.
    """

    def __init__(self, n: int, cutoff: float, exponent: int, *, learnable: bool) -> None:
        super().__init__()
        self.cutoff, self.exponent = cutoff, exponent
        start = math.pi * torch.arange(1, n + 1, dtype=torch.get_default_dtype())
        self.frequencies = nn.Parameter(start, requires_grad=learnable)

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        """Map lengths (Å), shape (B,), to shape (B, n)."""
        x = r / self.cutoff
        radial = math.sqrt(2 / self.cutoff) * torch.sin(self.frequencies * x[:, None])
        return radial * (envelope(x, self.exponent) / r)[:, None]


class GaussianBasis(nn.Module):
    """n Gaussians exp(c (r − r_k)²) with r_k = linspace(0, r_c) and c = −0.5/(2·spacing)², without an envelope."""

    def __init__(self, n: int, cutoff: float) -> None:
        super().__init__()
        self.register_buffer("offset", torch.linspace(0, cutoff, n))
        self.coefficient = -0.5 / (2 * cutoff / (n - 1)) ** 2

    offset: torch.Tensor

    def forward(self, r: torch.Tensor) -> torch.Tensor:
        """Map lengths (Å), shape (B,), to shape (B, n)."""
        return torch.exp(self.coefficient * (r[:, None] - self.offset) ** 2)


class FourierBasis(nn.Module):
    """[1/√2, sin(kθ), cos(kθ)]/√π, with frequencies k that are initialised to 1, 2, 3 and so on."""

    def __init__(self, n: int, *, learnable: bool) -> None:
        super().__init__()
        order = (n - 1) // 2
        start = torch.arange(1, order + 1, dtype=torch.get_default_dtype())
        self.frequencies = nn.Parameter(start, requires_grad=learnable)
        self.dim = 2 * order + 1

    def forward(self, cosine: torch.Tensor) -> torch.Tensor:
        """Map cosines, shape (A,), to shape (A, n)."""
        theta = torch.acos(cosine * COSINE_SCALE)
        phase = theta[:, None] * self.frequencies
        constant = torch.full_like(theta, 1 / math.sqrt(2))[:, None]
        return torch.cat([constant, torch.sin(phase), torch.cos(phase)], dim=1) / math.sqrt(math.pi)


class HarmonicBasis(nn.Module):
    """
    Spherical Bessel functions times the zonal harmonics Y_l0(cosθ), l-major.

    The published network evaluates the radial part at length 1, that of a unit vector. The radial part therefore is a
    constant, √(2/r_c³) j_l(z_ln/r_c) / |j_{l+1}(z_ln)|, where z_ln is the n-th zero of j_l. It is the same here.
    """

    def __init__(self, max_l: int, max_n: int, cutoff: float) -> None:
        super().__init__()
        self.max_l, self.max_n, self.dim = max_l, max_n, max_l * max_n
        self.register_buffer("factor", torch.tensor(math.sqrt(2 / cutoff**3)))
        zeros = spherical_bessel_zeros(max_l, max_n)
        degrees = np.arange(max_l)[:, None]
        radial = spherical_jn(degrees, zeros / cutoff) / np.abs(spherical_jn(degrees + 1, zeros))
        harmonic = np.sqrt((2 * degrees + 1) / (4 * np.pi))
        self.register_buffer("scale", torch.from_numpy(radial * harmonic), persistent=False)

    factor: torch.Tensor
    scale: torch.Tensor

    def forward(self, cosine: torch.Tensor) -> torch.Tensor:
        """Map cosines, shape (A,), to shape (A, max_l · max_n)."""
        x = cosine * COSINE_SCALE
        legendre = [torch.ones_like(x), x]
        for degree in range(1, self.max_l - 1):
            legendre.append(((2 * degree + 1) * x * legendre[-1] - degree * legendre[-2]) / (degree + 1))
        angular = torch.stack(legendre[: self.max_l], dim=1)
        scale = (self.scale * self.factor).to(x.dtype)
        return (angular[:, :, None] * scale).flatten(1)


class ChebyshevBasis(nn.Module):
    """
    Chebyshev polynomials T_0 … T_(n−1) of cosθ, orthonormal over θ from 0 to π: T_0/√π, then T_k·√(2/π).

    T_k(cosθ) = cos(kθ). As a polynomial it is smooth in the positions of the atoms at all angles; functions of
    θ = acos(cosθ) such as sinθ have a kink at 0° and 180°.
    """

    def __init__(self, n: int) -> None:
        super().__init__()
        self.dim = n

    def forward(self, cosine: torch.Tensor) -> torch.Tensor:
        """Map cosines, shape (A,), to shape (A, n)."""
        scale = math.sqrt(2 / math.pi)
        terms = [torch.full_like(cosine, scale), scale * cosine]
        double = 2 * cosine
        for _ in range(2, self.dim):
            terms.append(double * terms[-1] - terms[-2])
        terms[0] = torch.full_like(cosine, 1 / math.sqrt(math.pi))
        return torch.stack(terms[: self.dim], dim=1)


def spherical_bessel_zeros(max_l: int, max_n: int) -> np.ndarray:
    """
    Compute the first positive zeros of j_0 … j_(max_l−1); the zeros of j_l interlace with those of j_(l−1).

    Returns
    -------
    ndarray
        Shape (max_l, max_n).
    """
    zeros = np.arange(1, max_n + max_l) * np.pi
    rows = [zeros[:max_n]]
    for degree in range(1, max_l):
        zeros = np.array([brentq(lambda x, n=degree: spherical_jn(n, x), a, b, xtol=1e-14) for a, b in pairwise(zeros)])
        rows.append(zeros[:max_n])
    return np.array(rows)


def radial_basis(config: ModelConfig, cutoff: float) -> nn.Module:
    """Create the radial basis of a configuration."""
    if config.distance_expansion == "gaussian":
        return GaussianBasis(config.num_radial, cutoff)
    return BesselBasis(config.num_radial, cutoff, config.envelope_exponent, learnable=config.learnable_basis)


def angular_basis(config: ModelConfig) -> FourierBasis | HarmonicBasis | ChebyshevBasis:
    """Create the angular basis of a configuration."""
    if config.three_body_expansion == "sh":
        return HarmonicBasis(config.max_l, config.max_n, config.pairwise_cutoff)
    if config.three_body_expansion == "chebyshev":
        return ChebyshevBasis(config.num_angular)
    return FourierBasis(config.num_angular, learnable=config.learnable_basis)
