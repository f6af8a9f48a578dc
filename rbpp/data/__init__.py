"""Rows of real data: read from files, embedded, reduced to the dimension of a mixture."""
