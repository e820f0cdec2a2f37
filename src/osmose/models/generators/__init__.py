"""Weights of packaged generators."""
