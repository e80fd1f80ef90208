"""The demo: a web page for drawing with a model and captioning images."""
