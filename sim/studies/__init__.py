"""Runs and families of runs."""
