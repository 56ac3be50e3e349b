"""Measured tables beside what the models say: readers, names, predictions and their errors."""
