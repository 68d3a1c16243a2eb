"""File formats, one module each: files in, compact NumPy arrays out."""
