"""Baselines for AMER: re-ranking, query expansion and rewriting, other ways to get m query vectors, an upper bound."""
