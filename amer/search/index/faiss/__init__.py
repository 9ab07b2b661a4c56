"""A FAISS index in a folder, built for the recall that the user names."""
