"""Native kernels: features, LPCNet synthesis, range coder."""
