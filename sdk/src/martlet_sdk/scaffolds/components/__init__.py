"""The components of packages."""
