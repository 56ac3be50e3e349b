"""Taps: consumers that see every block of requests go by, and keep a bounded account of them."""
