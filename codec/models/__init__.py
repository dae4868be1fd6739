"""Trained weights, as data."""
