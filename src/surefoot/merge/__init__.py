"""Weights in, weights out, without training."""
