"""Detection sets from their official archives."""
