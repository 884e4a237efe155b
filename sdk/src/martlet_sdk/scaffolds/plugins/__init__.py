"""The plugin modules of packages."""
