"""What AMER is compared with: re-ranking, keywords and rewrites, other ways to m query vectors, an upper bound."""
