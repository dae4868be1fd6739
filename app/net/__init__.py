"""Between the bytes on a socket and the call: RTP and RTCP, SDP, signalling, UDP."""

DEFAULT_PORT = 8600
"""TCP, where a listener takes calls."""
