"""Image captioning: a CNN reads the image, an RNN writes the sentence."""
