"""Write, check and test Martlet plugins.

``martlet_sdk.contract``  the contract kit: subclass ``PluginContract`` in a test
``martlet_sdk.fixtures``  pytest fixtures: name it in ``pytest_plugins``
``martlet_sdk.tiny``      tiny real models and tokenizers with random weights
"""
