"""Texts in, vectors out: the encoder, corpora larger than memory, smaller vectors, what a cloud of them looks like."""

from surefoot.embed.encoder import Encoder

__all__ = ["Encoder"]
