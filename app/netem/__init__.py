"""Impairments on purpose: the options of tc-netem and recorded loss, with no sockets or clocks."""

from app.netem.distributions import derive_seed
from app.netem.grammar import parse_netem
from app.netem.model import Delivery, Netem, NetemCounters
from app.netem.queue import InTransit, NetemQueue
from app.netem.spec import NetemError, NetemSpec
from app.netem.trace import LossTrace, load_loss_trace, parse_loss_trace

__all__ = [
    "Delivery",
    "InTransit",
    "LossTrace",
    "Netem",
    "NetemCounters",
    "NetemError",
    "NetemQueue",
    "NetemSpec",
    "derive_seed",
    "load_loss_trace",
    "parse_loss_trace",
    "parse_netem",
]
