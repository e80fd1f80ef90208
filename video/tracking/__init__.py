"""Following one thing from frame to frame."""
