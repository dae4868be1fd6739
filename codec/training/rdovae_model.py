"""The rate-distortion-optimised variational autoencoder behind DRED (arXiv 2212.04453, section 3).

Time runs along the first axis of every tensor: [steps, batch, ...]. An encoder step is 20 ms, two
feature vectors; the latent of a step describes that pair and the one before it, so that every
other latent covers the signal once. The decoder runs backward: its first step is the newest latent.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

FEATURES = 20
CEPSTRA = 18
PAIR = 2 * FEATURES
CHUNK = 4 * FEATURES
LEVELS = 16
LATENTS = 32
STATES = 48

LAMBDA_FINEST = 0.0002
LAMBDA_COARSEST = 0.016
CEPSTRUM_WEIGHT = (0.2 + 0.4 * torch.arange(CEPSTRA)).clamp(max=2)
"""What errors of each coefficient count. Coarse spectral shape may be a little off unnoticed; fine
structure that is averaged away makes the vocoder dull, though its variance is small."""
PITCH_WEIGHT = 0.5
CORRELATION_WEIGHT = 4 / CEPSTRA
CEPSTRUM_PER_DB = math.sqrt(CEPSTRA) / 10
"""Of the first coefficient: it is the sum of 18 log10 band energies, over sqrt(18)."""


def trade_off(level: Tensor) -> Tensor:
    """lambda, the distortion that one bit per 40 ms is worth at a quantiser level."""
    return LAMBDA_FINEST * torch.exp(
        level.float() * (math.log(LAMBDA_COARSEST / LAMBDA_FINEST) / (LEVELS - 1))
    )


# Features as the distortion weighs them, roughly: its pitch term is no square.
IMPORTANCE = torch.cat(
    [CEPSTRUM_WEIGHT.sqrt(), torch.tensor([2.1, math.sqrt(CEPSTRA * CORRELATION_WEIGHT)])]
).repeat(4)


class Quantised(NamedTuple):
    """A latent after the quantiser, in the two versions that training decodes, and its cost."""

    soft: Tensor
    hard: Tensor
    soft_bits: Tensor
    hard_bits: Tensor


class Quantiser(nn.Module):
    """Scale, dead zone and Laplace parameters of every (level, dimension), all learned."""

    def __init__(self, dimensions: int) -> None:
        super().__init__()
        shape = (LEVELS, dimensions)
        self.scale = nn.Parameter(torch.zeros(shape))
        self.dead_zone = nn.Parameter(torch.full(shape, -1.0))
        self.decay = nn.Parameter(torch.zeros(shape))
        self.zero = nn.Parameter(torch.zeros(shape))

    def tables(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Scale, dead zone, r (decay of the tail) and p0 (probability of 0), each [levels, dim]."""
        r = torch.sigmoid(self.decay)
        p0 = 1 - r ** (0.5 + 0.5 * torch.sigmoid(self.zero))
        return torch.exp(self.scale), 0.05 * functional.softplus(self.dead_zone), r, p0

    def used(self) -> Tensor:
        """bool [dim]: whether 8-bit tables of some level give other values than 0 a code."""
        _, _, r, p0 = self.tables()
        return ((r > 0.5 / 256) & (p0 < 254.5 / 256)).any(0)

    def forward(self, x: Tensor, level: Tensor) -> Quantised:
        """x [..., dim], level [...] int64."""
        scale, dead_zone, r, p0 = (table[level] for table in self.tables())
        y = x * scale
        y = y - dead_zone * torch.tanh(y / (0.1 + dead_zone))
        noisy = y + torch.rand_like(y) - 0.5
        rounded = y + (torch.round(y) - y).detach()
        log_r = torch.log2(r)
        soft_bits = -(torch.log2((1 - r) / (1 + r)) + y.abs() * log_r)
        # Rounding has no slope, so the zero's share fades in between |v| = 0 and 1.
        magnitude = rounded.abs()
        at_zero = functional.relu(1 - magnitude) ** 2
        beyond = torch.log2(0.5 * (1 - p0) * (1 - r)) + (magnitude - 1).clamp(min=0) * log_r
        hard_bits = -(at_zero * torch.log2(p0) + (1 - at_zero) * beyond)
        return Quantised(noisy / scale, rounded / scale, soft_bits.sum(-1), hard_bits.sum(-1))


class Trunk(nn.Module):
    """Three dense layers with two GRUs between; every output goes on to all that follows."""

    def __init__(self, inputs: int, dense: int, recurrent: int) -> None:
        super().__init__()
        self.dense1 = nn.Linear(inputs, dense)
        self.gru1 = nn.GRU(dense, recurrent)
        self.dense2 = nn.Linear(dense + recurrent, dense)
        self.gru2 = nn.GRU(dense, recurrent)
        self.dense3 = nn.Linear(2 * (dense + recurrent), dense)
        self.outputs = inputs + 3 * dense + 2 * recurrent

    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """x [T, B, inputs], state [2, B, recurrent] -> [T, B, outputs], next state."""
        a = torch.tanh(self.dense1(x))
        b, state1 = self.gru1(a, state[:1].contiguous())
        c = torch.tanh(self.dense2(torch.cat([a, b], -1)))
        d, state2 = self.gru2(c, state[1:].contiguous())
        e = torch.tanh(self.dense3(torch.cat([a, b, c, d], -1)))
        return torch.cat([x, a, b, c, d, e], -1), torch.cat([state1, state2])


class RdoVae(nn.Module):
    """Encoder, quantisers and decoder."""

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        *,
        latents: int = LATENTS,
        states: int = STATES,
        encoder_dense: int = 96,
        encoder_recurrent: int = 64,
        decoder_dense: int = 96,
        decoder_recurrent: int = 96,
    ) -> None:
        super().__init__()
        self.encoder_recurrent = encoder_recurrent
        self.register_buffer("mean", torch.zeros(FEATURES))
        self.register_buffer("deviation", torch.ones(FEATURES))
        self.encoder = Trunk(2 * PAIR, encoder_dense, encoder_recurrent)
        self.to_latent = nn.Linear(self.encoder.outputs, latents)
        self.state_hidden = nn.Linear(self.encoder.outputs, 96)
        self.to_state = nn.Linear(96, states)
        self.latent_quantiser = Quantiser(latents)
        self.state_quantiser = Quantiser(states)
        self.from_state = nn.Linear(states, 96)
        self.to_recurrent = nn.Linear(96, 2 * decoder_recurrent)
        self.decoder = Trunk(latents + 1, decoder_dense, decoder_recurrent)
        self.to_features = nn.Linear(self.decoder.outputs, CHUNK)

    def encode(self, pairs: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode T steps.

        `pairs` float32 [1+T, B, 40] are raw features, the pair before the first step included;
        `state` [2, B, recurrent] the GRUs' state. Returns latents [T, B, latents], the trunk's
        output (for `initial_state`) and the next state.
        """
        normal = (pairs - self.mean.repeat(2)) / self.deviation.repeat(2)
        hidden, state = self.encoder(torch.cat([normal[:-1], normal[1:]], -1), state)
        return self.to_latent(hidden), hidden, state

    def initial_state(self, hidden: Tensor) -> Tensor:
        """[..., trunk] -> [..., states]: what a decoder starting here must know beforehand."""
        out: Tensor = self.to_state(torch.tanh(self.state_hidden(hidden)))
        return out

    def decode(self, latents: Tensor, initial: Tensor, level: Tensor) -> Tensor:
        """Latents [N, B, latents] newest first, initial [B, states], level [N, B] -> [N, B, 4, 20].

        The four feature vectors of a latent come newest first as well.
        """
        hidden = torch.tanh(self.to_recurrent(torch.tanh(self.from_state(initial))))
        state = hidden.reshape(len(initial), 2, -1).transpose(0, 1)
        x = torch.cat([latents, (level.float() / 8 - 1).unsqueeze(-1)], -1)
        out: Tensor = self.to_features(self.decoder(x, state)[0])
        return out.reshape(*out.shape[:-1], 4, FEATURES) * self.deviation + self.mean

    @torch.no_grad()
    def start_from_statistics(self, features: Tensor) -> None:
        """Start as a Karhunen-Loeve transform coder of single 40 ms chunks.

        The networks begin as a small correction to the best linear coder, whose step at each level
        is that of `linear_step`.
        """
        self.mean.copy_(features.mean(0))
        self.deviation.copy_(features.std(0).clamp(min=1e-3))
        count = self.latent_quantiser.scale.shape[1]
        usable = len(features) // 4 * 4
        chunks = (features[:usable].reshape(-1, CHUNK) - self.mean.repeat(4)) * IMPORTANCE
        variance, basis = principal_axes(chunks, count)
        for layer, factor in ((self.to_latent, 0.1), (self.to_features, 0.1), (self.to_state, 4.0)):
            layer.weight *= factor
            layer.bias.zero_()
        self._place(torch.arange(count), basis, variance, torch.ones(count))
        step = linear_step()
        # About two steps at the middle level: values within one step would be drowned in noise,
        # and a state that says nothing at first is never listened to.
        self.state_quantiser.scale.copy_(torch.log(2 * step[LEVELS // 2] / step)[:, None])
        self.state_quantiser.decay.fill_(0.5)

    @torch.no_grad()
    def _place(self, which: Tensor, basis: Tensor, variance: Tensor, share: Tensor) -> None:
        """Let latents [n] be projections on axes [80, n] of a chunk, worth `share` of themselves.

        Axes are in units of the distortion, oldest frame first; `variance` is that along them.
        """
        gain = (self.deviation.repeat(4) * IMPORTANCE)[:, None]
        self.to_latent.weight[which, :CHUNK] = (basis * gain).T
        self.to_latent.weight[which, CHUNK:] *= 0.1
        self.to_latent.bias[which] = 0
        newest_first = torch.arange(CHUNK).reshape(4, FEATURES).flip(0).flatten()
        self.to_features.weight[:, which] = (basis / gain * share)[newest_first]
        step = linear_step()
        quantiser = self.latent_quantiser
        quantiser.scale[:, which] = -torch.log(step)[:, None].expand(LEVELS, len(which))
        r = torch.exp(-1 / (0.8 * variance.sqrt() / step[:, None] + 0.05)).clamp(1e-3, 0.999)
        quantiser.decay[:, which] = torch.logit(r)
        quantiser.zero[:, which] = 0
        quantiser.dead_zone[:, which] = -1

    @torch.no_grad()
    def revive(self, features: Tensor) -> int:
        """Give latents that no level sends a new start, features [frames, 20]; returns how many.

        They begin as what the principal axes of the finest level's error say beyond the others.
        """
        used = self.latent_quantiser.used()
        which, others = (~used).nonzero().flatten(), used.nonzero().flatten()
        pairs = features[: len(features) // 4 * 4].reshape(-1, 1, PAIR)
        latents, hidden, _ = self.encode(pairs, torch.zeros(2, 1, self.encoder_recurrent))
        run = torch.arange(len(latents) - 1, -1, -2)
        level = torch.zeros(len(run), 1, dtype=torch.int64)
        sent = self.latent_quantiser(latents[run], level).hard
        decoded = self.decode(sent, self.initial_state(hidden[run[0]]), level)
        # Oldest frame first, as the encoder has them.
        decoded = decoded.flip(2).reshape(-1, CHUNK)
        truth = torch.cat([pairs[run], pairs[run + 1]], -1).reshape(-1, CHUNK)
        left = (truth - decoded) * IMPORTANCE
        _, basis = principal_axes(left, len(which))
        values = ((truth - self.mean.repeat(4)) * IMPORTANCE) @ basis
        known = torch.cat([latents[run, 0][:, others], torch.ones(len(run), 1)], -1)
        guess = torch.linalg.lstsq(known, values).solution
        values = values - known @ guess
        variance = values.square().mean(0)
        share = (values * (left @ basis)).mean(0) / variance
        self._place(which, basis, variance, share.clamp(0, 1))
        self.to_latent.weight[which] -= guess[:-1].T @ self.to_latent.weight[others]
        self.to_latent.bias[which] -= guess[:-1].T @ self.to_latent.bias[others] + guess[-1]
        self.decoder.dense1.weight[:, which] *= 0.1
        return len(which)


def linear_step() -> Tensor:
    """Quantiser step of each level that is best at high rate, in units of the distortion."""
    return torch.sqrt(CEPSTRA * 24 / math.log(2) * trade_off(torch.arange(LEVELS)))


def principal_axes(x: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Variances [count] and orthonormal axes [dim, count] of x [n, dim], largest first."""
    variance, basis = torch.linalg.eigh(x.T @ x / len(x))
    return variance.flip(0)[:count], basis.flip(1)[:, :count]


def distortion(target: Tensor, decoded: Tensor) -> Tensor:
    """What the vocoder hears of the difference, [..., 20] -> [...].

    Weighted mean square of the cepstrum; the pitch counts by how voiced the frame is.
    """
    voicing = functional.relu(target[..., 19] + 0.5) ** 2
    error = (decoded - target).unbind(-1)
    difference = decoded[..., :CEPSTRA] - target[..., :CEPSTRA]
    cepstrum = (CEPSTRUM_WEIGHT * difference.square()).mean(-1)
    return (
        cepstrum
        + PITCH_WEIGHT * voicing * error[18].abs()
        + CORRELATION_WEIGHT * error[19].square()
    )


def relevance(target: Tensor) -> Tensor:
    """How much a frame counts, [N, B, 4, 20] -> [N, B, 4]: less if 20 dB under its loudest second.

    Background noise is as hard to predict as speech and would take as many bits.
    """
    loudness = target[..., 0]
    loudest = loudness.amax((0, 2), keepdim=True)
    weight: Tensor = 0.25 + 0.75 * torch.sigmoid(loudness - loudest + 20 * CEPSTRUM_PER_DB)
    return weight
