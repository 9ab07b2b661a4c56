"""A FAISS index in a folder, built and tuned for a given recall."""
