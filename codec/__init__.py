"""Opus, DRED and LPCNet as a library: no sockets, no clocks, no devices."""

SAMPLE_RATE = 16_000
"""Hz, of every PCM array inside the project."""

FRAME = 320
"""Samples in one 20 ms frame at `SAMPLE_RATE`."""

FRAME_SECONDS = FRAME / SAMPLE_RATE

RTP_CLOCK = 48_000
"""Hz, of RTP timestamps of Opus whatever the coding rate (RFC 7587, section 4.1)."""

FRAME_TICKS = 960
"""RTP timestamp ticks in one 20 ms frame."""
