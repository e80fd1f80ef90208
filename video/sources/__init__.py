"""Readers of files on disk, which return checked items."""
