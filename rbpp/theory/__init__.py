"""Terms and bounds of the reverse-bottleneck theory, computed for a generation process."""
