"""The mathematics of sequences: arrays in, arrays out."""
