"""Pictures packed into a few large files: for network file systems, object storage and many machines."""
