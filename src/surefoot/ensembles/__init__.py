"""Ensembles: several models in, one that answers with all of them out."""
