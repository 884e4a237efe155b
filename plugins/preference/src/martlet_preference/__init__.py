"""Alignment from preferences: losses of pairs and the trainers of `martlet rlhf`."""
