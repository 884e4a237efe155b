"""Shared fixtures of every test folder."""

import signal

from hypothesis import HealthCheck, settings

pytest_plugins = ["martlet_sdk.fixtures"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # started in the background: what tests start would ignore it too
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("martlet", deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine
settings.load_profile("martlet")
