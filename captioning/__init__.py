"""Image captioning: a CNN reads the picture, an RNN writes the sentence."""
