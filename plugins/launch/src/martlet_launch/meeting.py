"""How the machines of a run meet: at a store that machine 0 serves, as torchrun's static rendezvous does it.

torch waits where no signal is heard. Here the wait is a loop of Python: Ctrl-C ends it, and so does a deadline.
"""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator

from torch.distributed import DistError, PrefixStore, Store, TCPStore  # type: ignore[attr-defined]
from torch.distributed.elastic.rendezvous import RendezvousInfo, RendezvousStoreInfo
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

from martlet import MartletError, UsageError

from .machines import Machines

LOCAL = "127.0.0.1"
QUIET = 5.0
"""Seconds of waiting that nobody is told of."""
ONE = 1.0
"""Seconds for torch to give up by itself."""
log = logging.getLogger("martlet")


class Meeting(StaticTCPRendezvous):
    """Machines of a run; one alone uses its loopback address, where nobody else can listen in."""

    def __init__(self, address: str, port: int, rank: int, machines: int, wait: float) -> None:
        super().__init__(address if machines > 1 else LOCAL, port, rank, machines, "martlet", int(wait))
        self.wait = wait

    def next_rendezvous(self) -> RendezvousInfo:
        """Return the store at which all machines have arrived."""
        if self.rank == 0:
            self._store = self._serve()
        else:
            self._knock()
            self._store = self._enter()
        store = PrefixStore(self.run_id, self._store)
        self.machines = Machines(PrefixStore("machines", store), self.rank, self.world_size, self.wait)
        if self.world_size > 1:
            self._gather(store)
        return RendezvousInfo(
            store, self.rank, self.world_size, RendezvousStoreInfo(self.master_addr, self.master_port)
        )

    def _serve(self) -> Store:
        try:
            listener = self._listen()
        except OSError as error:
            raise UsageError(
                f"--master_port {self.master_port}: another program has this port. Choose another one."
            ) from error
        self.master_port = listener.getsockname()[1]
        try:
            socket.create_connection((self.master_addr, self.master_port), timeout=5).close()
        except OSError as error:  # at once, and not when torch has tried for as long as anybody waits
            listener.close()
            raise UsageError(
                f"--master_addr {self.master_addr}: machine 0 does not reach itself there ({error.strerror or error}). "
                "Give the name or address of machine 0, on all of them."
            ) from error
        return self._open(is_master=True, listener=listener.detach())

    def _listen(self) -> socket.socket:
        if self.world_size == 1:
            return socket.create_server((LOCAL, self.master_port))  # port 0: any that is free
        both = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        return socket.create_server(("", self.master_port), family=family, dualstack_ipv6=both)

    def _open(self, *, is_master: bool, listener: int | None = None) -> Store:
        try:
            return TCPStore(
                self.master_addr,
                self.master_port,
                is_master=is_master,
                timeout=self.timeout,
                wait_for_workers=False,
                multi_tenant=True,
                master_listen_fd=listener,
            )
        except DistError as error:
            raise self._a_stranger(" ".join(str(error).split())[:200]) from error

    def _enter(self) -> Store:
        """Open the store of machine 0, or give up: torch waits for ever for an answer, where no signal is heard."""
        found: list[Store | BaseException] = []

        def open_it() -> None:
            try:
                found.append(self._open(is_master=False))
            except BaseException as error:
                found.append(error)

        threading.Thread(target=open_it, name="martlet-meeting", daemon=True).start()
        where = f"{self.master_addr}, port {self.master_port}"
        for _ in self._moments(f"Waiting for an answer from {where}.", self.wait + ONE):  # torch may say more
            if found and isinstance(found[0], BaseException):
                raise found[0]
            if found:
                return found[0]
        raise self._a_stranger(f"no answer within {self.wait:g} s")

    def _a_stranger(self, reason: str) -> MartletError:
        return MartletError(
            f"What machine {self.rank} reaches at {self.master_addr}, port {self.master_port} is not machine 0 of this "
            f"run ({reason}). Are MASTER_ADDR and MASTER_PORT those of machine 0?"
        )

    def _knock(self) -> None:
        """Wait until machine 0 answers."""
        where, reason = f"{self.master_addr}, port {self.master_port}", ""
        for _ in self._moments(f"Waiting for machine 0 at {where}."):
            try:
                socket.create_connection((self.master_addr, self.master_port), timeout=5).close()
                return
            except OSError as error:
                reason = str(error.strerror or error)
        raise MartletError(
            f"Machine {self.rank} did not reach machine 0 at {where} ({reason}) within {self.wait:g} s. Is it "
            "started, with the same MASTER_ADDR, MASTER_PORT and NNODES, and can it be reached?"
        )

    def _gather(self, store: Store) -> None:
        """Wait until every machine is here."""
        if store.add(f"machine/{self.rank}", 1) > 1:
            raise UsageError(f"--node_rank {self.rank}: another machine has this number. Give each its own NODE_RANK.")
        missing = list(range(self.world_size))
        for _ in self._moments(f"Waiting for the other machines of {self.world_size}."):
            missing = [number for number in missing if not store.check([f"machine/{number}"])]
            if not missing:
                return
        raise MartletError(
            f"Machine {', '.join(map(str, missing))} of {self.world_size} did not come within {self.wait:g} s. "
            "Start the same command on each machine, with its own NODE_RANK."
        )

    def _moments(self, notice: str, wait: float | None = None) -> Iterator[None]:
        """Yield until the time is up, and say once what is waited for."""
        start, told = time.monotonic(), False
        while (passed := time.monotonic() - start) < (self.wait if wait is None else wait):
            if passed > QUIET and not told:
                log.info("%s", notice)
                told = True
            yield
            time.sleep(0.2)
