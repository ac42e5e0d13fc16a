"""Word vectors, one file a method."""
