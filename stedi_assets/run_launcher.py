"""How Dagster starts runs on one machine, and sees that the process of one is gone.

Dagster's own launcher, but for the second.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from dagster import DagsterRun, DefaultRunLauncher
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus

if TYPE_CHECKING:
    from dagster._grpc.client import DagsterGrpcClient

PROCESS = "stedi/process"
"""The tag of a run that no server started: the number of its process, and the machine's name."""


def this_process() -> str:
    """The value of that tag for a run in this process."""
    return f"{os.getpid()}@{socket.gethostname()}"


class WatchfulRunLauncher(DefaultRunLauncher):
    """Dagster's default launcher, whose runs do not outlive their processes.

    A run whose process was killed together with the server that started it, as when the machine
    stops, would keep its place in the queue until the longest time that a run may take.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Yes: `run_monitoring` of dagster.yaml asks."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Whether the process of a run that has started is there.

        It is, as long as the server that started it is; a run of `stedi run` has it in a tag.
        """
        client = self._get_grpc_client_for_termination(run.run_id)  # type: ignore[no-untyped-call]
        is_there = _has(client, run.run_id) if client else _is_there(run.tags.get(PROCESS, ""))
        return CheckRunHealthResult(WorkerStatus.RUNNING if is_there else WorkerStatus.NOT_FOUND)


def _has(client: DagsterGrpcClient, run_id: str) -> bool:
    """Whether the server that started a run is there, and has an eye on it by itself."""
    # Imported here, for every `stedi run` reads this module, and it takes a while.
    from dagster._core.errors import DagsterUserCodeUnreachableError
    from dagster._grpc.types import CanCancelExecutionRequest, CanCancelExecutionResult
    from dagster._serdes import deserialize_value

    try:
        if client.socket:
            # Whether it knows the run says nothing: after a reload of the definitions, another
            # answers in its place. One that is started anew has a socket of its own.
            client.ping("")
            return True
        # At a port, a container's server, which does not reload: one that does not know the run
        # was started anew, and the run's process ended with the one before.
        answer = client.can_cancel_execution(CanCancelExecutionRequest(run_id=run_id))
        return deserialize_value(answer, CanCancelExecutionResult).can_cancel
    except DagsterUserCodeUnreachableError:
        return False


def _is_there(process: str) -> bool:
    """Whether there is a process on this machine; yes, where it is not known, as on another one."""
    number, _, machine = process.partition("@")
    if machine != socket.gethostname():
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OSError):  # no number; or somebody else's process
        return True
    return True
