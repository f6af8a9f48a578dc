"""Assessment of synthetic rows beside the real rows they were made from and for."""
