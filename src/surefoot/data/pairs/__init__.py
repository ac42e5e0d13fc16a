"""Pair makers: documents or labelled examples in, training data of embedding models out, one file a method."""
