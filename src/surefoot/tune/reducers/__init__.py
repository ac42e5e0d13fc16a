"""Reducers: from per-example losses to a scalar."""
