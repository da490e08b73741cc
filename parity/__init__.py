"""The bridge and the judge: the only package that sees both frameworks."""
