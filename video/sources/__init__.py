"""Readers of people's files: from disk to checked items."""
