"""Reverse-mode differentiation, optimizers and the training form of a graph: all of it builds nodes of the same graph."""
