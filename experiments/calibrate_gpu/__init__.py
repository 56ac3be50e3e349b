"""Step times and board power of transformer layers, measured on the GPU at hand; needs PyTorch and nothing else of the project."""
