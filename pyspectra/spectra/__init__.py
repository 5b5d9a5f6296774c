"""Arrays to statistics."""
