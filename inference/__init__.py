"""Inference programs, one file each: `python inference/NAME.py …` is `rbpp NAME …`."""
