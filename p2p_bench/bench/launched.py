"""Processes that something else started together, such as torchrun or srun, perhaps on several machines.

They agree once before they edit and once after, through the key-value store that the variables of torchrun
and srun lead to. There is no process group and nothing collective: a process that edits waits for no other.
The first holds the directory of the run, tells the others what is missing, edits its share like them, and
merges the rows.
"""

import functools
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]  # not in its stubs
from torch.distributed.rendezvous import rendezvous

from p2p_bench.errors import OtherProcessError, ProcessLostError, exit_code_of

_POLL = 0.2
_BEAT = 5.0
_SILENCE = 120.0
"""Seconds without a sign of life after which a process counts as lost."""

_SLURM = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")
_PORTS = (15_000, 25_000)
"""Ports of which the processes of a SLURM step take one, by its number, where `MASTER_PORT` names none."""

_CONNECT = timedelta(minutes=15)


@dataclass(frozen=True)
class Launched:
    """This process among those that were started together.

    Attributes:
        rank: Its number; 0 leads.
        count: How many there are.
        local_rank: Its number on this machine, which is that of its device.
        store: What they agree through.
        meetings: How often they have met; a list of one, since it counts.
    """

    rank: int
    count: int
    local_rank: int
    store: Store
    meetings: list[int] = field(default_factory=lambda: [0])

    @contextmanager
    def leading(self) -> Iterator["Lead"]:
        """What the first process does for a run: while the context lasts the others help.

        However it ends, the others have ended their part before.
        """
        lead = Lead(self, self._next())
        try:
            yield lead
        except BaseException as error:
            if lead.told:
                lead.stop()
                lead.ends()
            else:
                lead.tell_stopped(str(error) or type(error).__name__)
            raise
        if not lead.told:
            lead.tell([])

    @contextmanager
    def helping(self) -> Iterator[tuple[list[dict[str, Any]], Callable[[], bool]]]:
        """What another process does for a run.

        Gives what `Lead.tell` was told, and a function that says whether to end after the batch in hand.

        Raises:
            OtherProcessError: The first process has stopped before there was anything to do.
            ProcessLostError: It is gone.
        """
        number = self._next()
        end: dict[str, Any] = {"state": "fault", "message": "it ended", "code": 1}
        try:
            yield self._heard(number), lambda: self._there(f"{number}/stop")
            end = {"state": "done"}
        except KeyboardInterrupt:
            end = {"state": "interrupted"}
            raise
        except BaseException as error:
            message = f"process {self.rank + 1} of {self.count}: {error or type(error).__name__}"
            end = {"state": "fault", "message": message, "code": exit_code_of(error)}
            raise
        finally:
            self._set(f"{number}/end/{self.rank}", end)

    def _heard(self, number: int) -> list[dict[str, Any]]:
        while not self._there(f"{number}/plan"):
            time.sleep(_POLL)
        plan = json.loads(self.store.get(f"{number}/plan"))
        if "stopped" in plan:
            raise OtherProcessError(f"the first process has stopped: {plan['stopped']}", 1)
        runs: list[dict[str, Any]] = plan["runs"]
        return runs

    def _next(self) -> int:
        self.meetings[0] += 1
        return self.meetings[0]

    def _there(self, key: str) -> bool:
        try:
            return bool(self.store.check([key]))
        except RuntimeError as error:
            raise _gone(error) from error

    def _set(self, key: str, value: Mapping[str, Any]) -> None:
        try:
            self.store.set(key, json.dumps(value))
        except RuntimeError as error:
            raise _gone(error) from error

    def beat(self) -> None:
        """Gives signs of life until the process or the store ends."""
        count = 0
        while True:
            try:
                self.store.set(f"beat/{self.rank}", str(count))
            except RuntimeError:
                return
            count += 1
            time.sleep(_BEAT)


@dataclass(eq=False)
class Lead:
    """What the first process knows of a meeting.

    Attributes:
        others: The processes.
        number: Number of the meeting.
        told: Whether the others know what to do.
    """

    others: Launched
    number: int
    told: bool = False
    ended: dict[int, dict[str, Any]] | None = None

    def tell(self, runs: Sequence[Mapping[str, Any]]) -> None:
        """Tells the others what is to be done, as plain values, one mapping per run."""
        self.told = True
        self.others._set(f"{self.number}/plan", {"runs": list(runs)})

    def tell_stopped(self, reason: str) -> None:
        """Tells the others that there is nothing to be done, and why."""
        self.told = True
        self.others._set(f"{self.number}/plan", {"stopped": reason})

    def stop(self) -> None:
        """Asks the others to end after the batch in hand."""
        self.others._set(f"{self.number}/stop", {})

    def wait(self) -> None:
        """Waits until every other process has done its share.

        Raises:
            ProcessLostError: One of them is gone.
            OtherProcessError: Something went wrong in one.
            KeyboardInterrupt: One was interrupted.
        """
        _raise_first(self.ends())

    def ends(self) -> dict[int, dict[str, Any]]:
        """Waits until every other process has done its share; how each ended, by rank."""
        if self.ended is None:
            self.ended = self._ends()
        return self.ended

    def _ends(self) -> dict[int, dict[str, Any]]:
        found: dict[int, dict[str, Any]] = {}
        signs: dict[int, tuple[bytes, float]] = {}
        while len(found) < self.others.count - 1:
            for rank in range(1, self.others.count):
                key = f"{self.number}/end/{rank}"
                if rank not in found and self.others._there(key):
                    found[rank] = json.loads(self.others.store.get(key))
                elif rank not in found and self._silent(rank, signs):
                    lost = f"process {rank + 1} of {self.others.count} gives no sign of life any more"
                    found[rank] = {"state": "lost", "message": lost}
            time.sleep(_POLL)
        return found

    def _silent(self, rank: int, signs: dict[int, tuple[bytes, float]]) -> bool:
        key = f"beat/{rank}"
        sign = self.others.store.get(key) if self.others._there(key) else b""
        before = signs.get(rank)
        if before is None or before[0] != sign:
            signs[rank] = (sign, time.monotonic())
            return False
        return time.monotonic() - before[1] > _SILENCE


@functools.cache
def launched() -> Launched | None:
    """This process among others, by the variables of torchrun or srun; None where it was started alone.

    Raises:
        ProcessLostError: The others do not come.
    """
    place = _place()
    if place is None or place[1] == 1:
        return None
    rank, count, local_rank, torchrun = place
    try:
        store = _store(rank, count, torchrun)
    except RuntimeError as error:
        raise ProcessLostError(f"the {count} processes do not find each other ({error})") from error
    found = Launched(rank, count, local_rank, store)
    threading.Thread(target=found.beat, daemon=True, name="sign of life").start()
    return found


def started_together() -> int:
    """Number of processes that torchrun or srun started with this one, itself included; 0 if neither did."""
    place = _place()
    return 0 if place is None else place[1]


def _place() -> tuple[int, int, int, bool] | None:
    """Rank, count, rank on this machine, and whether by torchrun."""
    if TorchElasticEnvironment.detect():
        one = TorchElasticEnvironment()
        return one.global_rank(), one.world_size(), one.local_rank(), True
    if {*_SLURM, "SLURM_STEP_ID"} <= set(
        os.environ
    ):  # a step that srun started, not a shell in an allocation
        rank, count, local_rank = (int(os.environ[name]) for name in _SLURM)
        return rank, count, local_rank, False
    return None


def _store(rank: int, count: int, torchrun: bool) -> Store:
    if torchrun:
        store: Store = next(iter(rendezvous("env://", rank=rank, world_size=count, timeout=_CONNECT)))[0]
        return store
    nodes = os.environ.get("SLURM_STEP_NODELIST", os.environ.get("SLURM_NODELIST", "127.0.0.1"))
    address = os.environ.get("MASTER_ADDR") or SLURMEnvironment.resolve_root_node_address(nodes)
    job, step = (int(os.environ.get(name, "0")) for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    port = int(os.environ.get("MASTER_PORT") or _PORTS[0] + (job * 31 + step) % (_PORTS[1] - _PORTS[0]))
    return TCPStore(address, port, count, rank == 0, timeout=_CONNECT)


def _raise_first(ends: Mapping[int, Mapping[str, Any]]) -> None:
    for end in sorted(
        ends.values(), key=lambda end: ("lost", "fault", "interrupted", "done").index(end["state"])
    ):
        if end["state"] == "lost":
            raise ProcessLostError(f"{end['message']}; the others have done their share")
        if end["state"] == "fault":
            raise OtherProcessError(str(end["message"]), int(end["code"]))
        if end["state"] == "interrupted":
            raise KeyboardInterrupt


def _gone(error: Exception) -> ProcessLostError:
    return ProcessLostError(f"the other processes of this run cannot be reached ({error})")
