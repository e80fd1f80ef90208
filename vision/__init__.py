"""The mathematics of pixels: ResNet, published weights, preprocessing."""
