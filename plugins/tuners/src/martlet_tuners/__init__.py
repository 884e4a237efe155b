"""Tuners: which weights of a model are trained, and how they are saved, loaded and merged.

``martlet_tuners.full``   all weights, or a chosen part of them
``martlet_tuners.lora``   low-rank adapters, in PEFT's format
"""
