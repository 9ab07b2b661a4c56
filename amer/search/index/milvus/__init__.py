"""Search in Milvus: a file, a server or a cluster."""
