"""A Slurm cluster of one node, this machine, on ports of the loopback, where Slurm is installed."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
# Slurm's daemons are started by root, who alone may run a task as another user.
INSTALLED = ["slurm"] if os.geteuid() == 0 and all(map(shutil.which, DAEMONS)) else []
START_SECONDS = 60

CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,batch_sched_delay=0
ReturnToService=2
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@contextlib.contextmanager
def running_cluster(folder: Path) -> Iterator[Path]:
    """Start the daemons and wait for the node; yield the file that SLURM_CONF names, and end them after."""
    for name in ("state", "spool"):
        (folder / name).mkdir()
    controller_port, node_port = _free_ports(2)
    config = folder / "slurm.conf"
    host, cores = socket.gethostname().split(".")[0], os.cpu_count()
    config.write_text(
        CONFIG.format(host=host, cores=cores, folder=folder, controller_port=controller_port, node_port=node_port)
    )
    (folder / "munge.key").write_bytes(secrets.token_bytes(64))
    (folder / "munge.key").chmod(0o600)
    munge = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log"}
    flags = [f"--{name}={folder / file}" for name, file in (munge | {"seed-file": "munge.seed"}).items()]
    environment = {**os.environ, "SLURM_CONF": str(config)}
    try:
        for command in (["munged", "--force", *flags], ["slurmctld", "-c"], ["slurmd", "-c"]):
            subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _wait_for_node(environment)
        yield config
    finally:
        for name in ("slurmd", "slurmctld", "munged"):
            _end(folder / f"{name}.pid")


def _wait_for_node(environment: dict[str, str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    command = ["sinfo", "--noheader", "--format=%T"]
    while "idle" not in subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _end(pid_file: Path) -> None:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
        os.kill(int(pid_file.read_text()), signal.SIGTERM)
