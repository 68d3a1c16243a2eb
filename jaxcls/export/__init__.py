"""A finished run as a folder that is taken elsewhere: one file a format, and the loader that goes with it."""
