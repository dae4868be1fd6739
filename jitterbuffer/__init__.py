"""Packet store, recovery plan and playout order: no sockets, no wall clock."""
