"""Classes of clips and of recordings, and gestures in a stream."""
