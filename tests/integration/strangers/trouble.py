"""Let something happen to one process, once it has finished a step."""

import os
import signal
import socket
import time
from dataclasses import dataclass

import torch

from martlet import Callback, ModelPatch, hookimpl


@dataclass
class Options:
    what: str = "nothing"
    rank: int = 1
    step: int = 3


class Trouble:
    def __init__(self, options):
        self.options = options

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.options.step and args.process_index == self.options.rank:
            getattr(self, self.options.what)()

    def nothing(self):
        pass

    def killed(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def stopped(self):
        os.kill(os.getpid(), signal.SIGSTOP)

    def interrupted(self):
        os.kill(os.getpid(), signal.SIGINT)

    def asleep(self):
        time.sleep(60)

    def at_fault(self):
        raise ValueError("the moon is full")

    def killed_while_saving(self):
        """Be lost in the next checkpoint, when the weights are put together and the optimizer's state is not."""
        from martlet_train import saving

        saving.whole_optimizer = lambda *state, **settings: self.killed()

    def cut_off(self):
        """Break every connection that this process has."""
        for number in os.listdir("/proc/self/fd"):
            try:
                connection = socket.socket(fileno=os.dup(int(number)))
                connection.getpeername()
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # no socket, or one that only listens


class Spare:
    """Give the model a parameter that it does not use."""

    def before_load(self, config, kwargs, run):
        pass

    def after_load(self, model, processor, run):
        model.register_parameter("spare", torch.nn.Parameter(torch.zeros(3)))
        return model


@hookimpl
def provide_model_patches():
    yield ModelPatch("spare", Spare)


@hookimpl
def provide_callbacks():
    yield Callback("trouble", Trouble, options=Options)
