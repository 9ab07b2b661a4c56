"""AMER in other frameworks: one file and one extra per framework."""
