"""Requests through replicas: one contract, engines that agree on every integer."""
