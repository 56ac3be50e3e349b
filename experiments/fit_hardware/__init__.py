"""Fits of the hardware model to measured and composed tables."""
