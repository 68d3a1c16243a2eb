"""Small data sets that come with the package, in the format of the real files."""
