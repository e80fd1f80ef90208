"""Classification of clips and of sequences of features; gestures in streams."""
