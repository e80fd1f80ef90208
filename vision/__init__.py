"""The mathematics of pixels: networks, published weights, preprocessing."""
