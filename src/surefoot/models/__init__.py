"""Load, run and save pretrained models."""
