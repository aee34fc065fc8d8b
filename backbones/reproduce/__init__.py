"""The paper's tables and figures: what they need is trained, and stands beside what the paper says."""
