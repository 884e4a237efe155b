"""Shared fixtures of every test folder."""

pytest_plugins = ["martlet_sdk.fixtures"]
