"""Commands that use a model: ``infer`` and ``quickstart``."""
