"""The scripts that made the weights in codec.models."""
