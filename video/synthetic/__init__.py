"""Generated clips: SYNTHETIC data sets that require memory."""
