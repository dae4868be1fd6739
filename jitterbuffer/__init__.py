"""Packet store, recovery plan and playout order: no sockets, no wall clock."""

from jitterbuffer.buffer import JitterBuffer
from jitterbuffer.packet import MediaPacket
from jitterbuffer.stats import JitterBufferStats

__all__ = ["JitterBuffer", "JitterBufferStats", "MediaPacket"]
