"""A page to draw with, and to have photographs described: the demo."""
