"""Attacks: inputs in, inputs out that a model gets wrong, within a distance that should not matter; one file each."""
