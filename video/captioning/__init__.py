"""Captioning of clips."""
