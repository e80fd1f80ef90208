"""Sketch-RNN: a recurrent generative model of drawings (Ha and Eck, 2017)."""
