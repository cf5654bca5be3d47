"""Weights that others trained: a module for each family of networks, whose table names every array on both sides."""
