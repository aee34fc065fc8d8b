"""What is wrong with data sets in class folders. Everything is a finding; nothing stops a check."""
