"""Poolings: one file a method (see `surefoot.models.pooling` for the contract)."""
