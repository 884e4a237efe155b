"""One-file plugins."""
