"""Sketch-RNN: a recurrent network that draws (Ha and Eck, 2017)."""
