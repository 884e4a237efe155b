"""What any plugin that provides tuners has to keep."""

from martlet_sdk.contract import PluginContract


class TestTuners(PluginContract):
    plugin = "tuners"
