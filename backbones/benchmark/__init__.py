"""Speed and memory of each part of the project beside the usual way, and how far both are from the machine's limit."""
