"""Experiments: one command each, on real data, with a page to look at."""
