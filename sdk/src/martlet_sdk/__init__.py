"""Write, check and test Martlet plugins.

``martlet_sdk.contract``  the contract kit: subclass ``PluginContract`` in a test
``martlet_sdk.fixtures``  pytest fixtures: name it in ``pytest_plugins``
``martlet_sdk.tiny``      tiny real models and tokenizers with random weights
``martlet_sdk.stranger``  an environment to install plugin packages into
``martlet_sdk.protocols``  what the target of each kind must be able to do
"""
