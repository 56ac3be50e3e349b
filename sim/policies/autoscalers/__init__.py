"""Autoscalers, one file each, under the name of what they follow."""
