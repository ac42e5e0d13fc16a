"""Search strategies beside the drawing of whole recipes: one file each."""
