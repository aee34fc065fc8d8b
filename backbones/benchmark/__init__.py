"""Speed and memory of what is about classifiers beside the usual way, and how far both are from the machine's limit."""
