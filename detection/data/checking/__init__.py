"""What is wrong with detection sets: tolerant readers of each layout, and what is asked of all they read."""
