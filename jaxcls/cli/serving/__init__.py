"""A finished run, or an export, behind an address: what a request says, what is computed together, and HTTP."""
