"""Codes: one file a method (see `surefoot.embed.code` for the contract)."""
