"""Video: what a recurrent network sees in frames, and where things went."""
