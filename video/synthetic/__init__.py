"""Clips that are drawn: SYNTHETIC data sets in which memory is required."""
