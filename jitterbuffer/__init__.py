"""Packet store, recovery plan, playout order and time stretching: no sockets, no wall clock."""

from jitterbuffer.buffer import JitterBuffer
from jitterbuffer.latency import Latency, LatencyPolicy
from jitterbuffer.packet import MediaPacket
from jitterbuffer.receiver import PlayoutReceiver
from jitterbuffer.sound import PlayedBlock, PlayedPart
from jitterbuffer.stats import JitterBufferStats

__all__ = [
    "JitterBuffer",
    "JitterBufferStats",
    "Latency",
    "LatencyPolicy",
    "MediaPacket",
    "PlayedBlock",
    "PlayedPart",
    "PlayoutReceiver",
]
