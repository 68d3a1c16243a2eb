"""One file a format: what is on the disk in, compact NumPy arrays out."""
