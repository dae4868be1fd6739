"""How much redundancy to send, by what the peer reports of loss."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from app.net.bursts import GMIN, PACKET_MS, BurstMetrics
from codec import FRAME_SECONDS

RISE = 0.5
FALL = 0.1
"""Weight of a new report of more, or of less, than expected. Redundancy that comes too late is
heard at once, redundancy that stays too long only costs bits."""

CEILING = 50
"""Percent: beyond it libopus starves the speech itself."""

START = 10
"""Percent, until the first report: so that the first burst already meets redundancy."""

LBRR_FLOOR = 5
"""Percent: libopus sends no LBRR at 0 and next to none below this."""

ON_ABOVE = 1.5
OFF_BELOW = 0.75
"""Expected loss, in percent, at which redundancy begins and ends. One packet of the fifty between
two reports does not begin it: what it leaves is concealed well."""

CHUNK_MS = 40
MIN_REACH = 200
MAX_REACH = 1000
"""ms. The longest payload of DRED holds 1040 ms; few bursts are longer and worth hiding."""

UNKNOWN_REACH = 400
"""ms, as long as the peer does not say in what bursts packets are lost."""

REACH_STEP = 2 * CHUNK_MS
"""ms by which a shorter reach has to be enough before it is shortened."""

FINE = (16, 2.28)
COARSE = (13, 1.2)
"""Bytes of a DRED payload: header and initial state, and each chunk of 40 ms; enough for q0 = 3 to
7, and the least to be content with, q0 = 8 to 10 (docs/redundancy.md)."""

CONTAINER_BYTES = 6
"""What a packet grows by beyond the payload: extension, prefix, padding's length."""

BISECTIONS = 30

SPEECH_FLOOR = 16_000
"""bits/s: wideband speech is not taken below this for the sake of redundancy (RFC 7587 section
3.1.1 names 16 to 20 kb/s)."""


@dataclass(frozen=True, slots=True)
class Redundancy:
    """What the sender is to do from now on."""

    expected_loss_percent: int
    """0-100, for libopus."""
    lbrr: bool
    dred_ms: int
    """How far back DRED is to reach; 0: none."""
    dred_bytes: int
    """Most bytes of its payload in a 20 ms packet; 0: none."""
    opus_bitrate: int
    """bits/s, for libopus. LBRR comes out of it, DRED and copies do not."""
    red_copies: int = 0
    """Packets that are repeated in each."""


def mean_run_ms(bursts: BurstMetrics) -> float:
    """How many ms are lost in one go, on average; an estimate.

    A burst in the sense of RFC 3611 contains packets that arrived, up to 15 in a row: at 20 % loss
    without any pattern it lasts for seconds. What is lost of it, n packets, is n/k per run. For k
    let packets arrive in geometric runs of mean G between two losses, as in Gilbert's model. One of
    16 or more ends the burst, so that k = (1 - 1/G)^-15, and the k - 1 shorter ones hold
    G(k - 1) - 15 packets, which are known: G follows.
    """
    packets = bursts.burst_ms / PACKET_MS
    lost = bursts.burst_density * packets
    if lost <= 1:
        return PACKET_MS if bursts.loss_rate else 0.0
    arrived = packets - lost
    low, high = 1e-6, 1 - 1e-6
    for _ in range(BISECTIONS):
        rate = (low + high) / 2
        if ((1 - rate) ** (1 - GMIN) - 1) / rate > arrived + GMIN - 1:
            high = rate
        else:
            low = rate
    return PACKET_MS * max(1.0, lost * (1 - low) ** (GMIN - 1))


def dred_bits(payload_bytes: int) -> int:
    """Bits/s that DRED payloads of this size take in the packets, container included."""
    return round(8 * (payload_bytes + CONTAINER_BYTES) / FRAME_SECONDS) if payload_bytes else 0


def _payload_bytes(span_ms: float, quality: tuple[float, float]) -> int:
    fixed, chunk = quality
    return ceil(fixed + chunk * ceil(span_ms / CHUNK_MS))


def _room(bitrate: float) -> int:
    """Bytes of payload per packet for which bits/s suffice."""
    return max(0, int(bitrate * FRAME_SECONDS / 8) - CONTAINER_BYTES)


class RedundancyPolicy:
    """From the peer's reports to `Redundancy`. Quick up, slow down. No I/O, no clock.

    `lbrr`, `dred` and `red_copies` (RFC 2198) say what may be used. `bitrate` is that of speech,
    DRED and copies come on top of it: DRED at most `max_dred_bitrate`, and all together at most
    `total_bitrate`, all in bits/s.
    `max_dred_ms` bounds what is chosen. `dred_ms` fixes DRED's reach instead: it is sent always
    and as far back as that, at 0 never. `expected_loss` in percent stands whatever is reported.

    Raises ValueError if a setting is out of range.
    """

    def __init__(
        self,
        *,
        bitrate: int,
        lbrr: bool = False,
        dred: bool = False,
        red_copies: int = 0,
        dred_ms: int | None = None,
        max_dred_ms: int = MAX_REACH,
        max_dred_bitrate: int = 32_000,
        total_bitrate: int | None = None,
        expected_loss: int | None = None,
    ) -> None:
        for name, reach in (("dred_ms", dred_ms or 0), ("max_dred_ms", max_dred_ms)):
            if not 0 <= reach <= MAX_REACH:
                raise ValueError(f"{name} of {reach}, not 0 to {MAX_REACH} ms")
        if expected_loss is not None and not 0 <= expected_loss <= 100:
            raise ValueError(f"expected_loss of {expected_loss}, not 0 to 100 percent")
        self._bitrate = bitrate
        self._lbrr = lbrr
        self._red_copies = red_copies
        self._dred = dred and max_dred_ms >= 2 * CHUNK_MS and dred_ms != 0
        self._fixed_ms = dred_ms if self._dred else None
        self._max_ms = max_dred_ms // CHUNK_MS * CHUNK_MS
        self._max_dred_bitrate = max_dred_bitrate
        self._total = total_bitrate
        self._fixed_loss = expected_loss
        self._percent = float(START if expected_loss is None else expected_loss)
        self._active = self._percent >= ON_ABOVE
        self._need = float(UNKNOWN_REACH)
        self._reach = UNKNOWN_REACH
        self._current = self._decide()

    @property
    def current(self) -> Redundancy:
        """As of the latest report; before the first, what to begin with."""
        return self._current

    def update(self, fraction_lost: float, bursts: BurstMetrics | None = None) -> Redundancy:
        """Takes in a report: 0..1 lost since the previous one, and in what bursts if it says so."""
        if self._fixed_loss is None:
            reported = 100 * fraction_lost
            weight = RISE if reported > self._percent else FALL
            self._percent += weight * (reported - self._percent)
        self._active = self._percent >= (OFF_BELOW if self._active else ON_ABOVE)
        self._follow(bursts)
        self._current = self._decide()
        return self._current

    def _follow(self, bursts: BurstMetrics | None) -> None:
        need = float(UNKNOWN_REACH)
        if bursts is not None:
            # about the 95th percentile if runs end at random: -ln 0.05 = 3 means, less for short
            # ones; and the mean is one of a few bursts only
            need = min(max(2 * mean_run_ms(bursts) + 100, MIN_REACH), MAX_REACH)
        self._need += (1 if need > self._need else FALL) * (need - self._need)
        if self._need > self._reach or self._need <= self._reach - REACH_STEP:
            self._reach = ceil(self._need / CHUNK_MS) * CHUNK_MS

    def _decide(self) -> Redundancy:
        wanted = self._fixed_ms or (min(self._reach, self._max_ms) if self._active else 0)
        span, size = self._fit(wanted) if self._dred else (0, 0)
        # with nothing but LBRR there is no switching it off: its bits are in the bitrate anyway
        automatic = self._dred and self._fixed_ms is None
        lbrr = self._lbrr and (self._active or not automatic)
        copies = self._copies() if self._active else 0
        bitrate = self._bitrate
        if self._total is not None:
            speech = (self._total - dred_bits(size)) // (1 + copies)
            bitrate = min(bitrate, max(self._speech_floor, speech))
        return Redundancy(self._expected_loss(lbrr), lbrr, span, size, bitrate, copies)

    def _copies(self) -> int:
        """As many as can be paid for beside the least that speech is to have."""
        if self._total is None:
            return self._red_copies
        return max(0, min(self._red_copies, self._total // self._speech_floor - 1))

    def _expected_loss(self, lbrr: bool) -> int:
        if self._fixed_loss is not None:
            return self._fixed_loss
        return round(min(CEILING, max(LBRR_FLOOR if lbrr else 0, self._percent)))

    @property
    def _speech_floor(self) -> int:
        return min(self._bitrate, SPEECH_FLOOR)

    def _fit(self, span: int) -> tuple[int, int]:
        """The span that can be paid for, and its bytes: first coarser, then shorter."""
        if not span:
            return 0, 0
        most = beside_speech = _room(self._max_dred_bitrate)
        if self._total is not None:
            most = min(most, _room(self._total - self._speech_floor))
            beside_speech = min(most, _room(self._total - self._bitrate))
        fine, coarse = _payload_bytes(span, FINE), _payload_bytes(span, COARSE)
        size = min(fine, max(beside_speech, min(coarse, most)))
        if self._fixed_ms is not None or size >= coarse:
            return span, size
        fixed, chunk = COARSE
        chunks = int((size - fixed) / chunk)
        return (chunks * CHUNK_MS, size) if chunks >= 2 else (0, 0)
