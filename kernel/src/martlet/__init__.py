"""Martlet: fine-tune, align, run and serve language models with plugins.

``import martlet`` loads neither torch nor any plugin.
"""

# ruff: noqa: I001
from .api import arguments, get, prepare, run
from .config import Config
from .errors import AmbiguousComponent, CheckpointError, ConfigError, DataError, MartletError
from .errors import PluginError, UnknownComponent, UsageError
from .hookspecs import hookimpl
from .manager import Plugin, PluginManager
from .run import Process, Run
from .sources import Origin
from .specs import KINDS, Arguments, Callback, Command, Dataset, DatasetSource, Engine, Hub, Loss, LossScale, Model
from .specs import ModelPatch, Preprocessor, Reward, Spec, Template, Trainer, Tuner

__all__ = [
    "KINDS", "AmbiguousComponent", "Arguments", "Callback", "CheckpointError", "Command", "Config", "ConfigError",
    "DataError", "Dataset", "DatasetSource", "Engine", "Hub", "Loss", "LossScale", "MartletError", "Model",
    "ModelPatch", "Origin", "Plugin", "PluginError", "PluginManager", "Preprocessor", "Process", "Reward", "Run",
    "Spec", "Template", "Trainer", "Tuner", "UnknownComponent", "UsageError", "arguments", "get", "hookimpl",
    "prepare", "run",
]  # fmt: skip
