"""What any plugin that provides a model loader has to keep."""

from martlet_sdk.contract import PluginContract


class TestModels(PluginContract):
    plugin = "models"
