"""Load causal language models and their tokenizers from a folder or a hub.

``martlet_models.loader.DefaultLoader``  the loader that other model plugins may subclass
"""
