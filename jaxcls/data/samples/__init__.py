"""Small data sets that come with jaxcls, in the format of the real files: real subsets and synthetic generators."""
