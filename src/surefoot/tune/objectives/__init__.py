"""Objectives: one file per term of the loss."""
