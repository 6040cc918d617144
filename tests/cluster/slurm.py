"""A Slurm for tests: its own daemons on ports of its own, and GPUs that are devices in name only."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

INSTALL = "apt-get install slurm-wlm munge, as make test-cluster does where it may"
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")
_DAEMON_TIMEOUT = 30.0  # seconds for daemons to start or to stop
_MUNGE = {"key-file": "key", "socket": "socket", "pid-file": "pid", "seed-file": "seed", "log-file": "log"}
_CORES = 8  # that the node says it has, so that jobs on all GPUs run side by side

_SLURM_CONF = """\
ClusterName=tests
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,kill_invalid_depend
ReturnToService=2
KillWait=5
MinJobAge=3600
GresTypes=gpu
NodeName=localhost NodeHostname=localhost NodeAddr=127.0.0.1 CPUs={cores} RealMemory=8000 Gres=gpu:fake:{gpus}
PartitionName=gpu Nodes=localhost Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


def cannot_run() -> str | None:
    """Say why no Slurm can be started here; None if it can."""
    if not sys.platform.startswith("linux"):
        return "Slurm runs on Linux"
    if os.geteuid() != 0:
        return "Slurm's daemons are started as root, for fake GPUs are made by mknod"
    if missing := [program for program in _PROGRAMS if shutil.which(program) is None]:
        return f"no {', '.join(missing)}: {INSTALL}"
    try:
        with tempfile.TemporaryDirectory() as folder:
            _make_gpu(Path(folder) / "nvidia0")
    except OSError as error:
        return f"no fake GPU can be made here: {error}"
    return None


def _make_gpu(path: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))  # /dev/null under another name; Slurm refuses plain files


@contextmanager
def slurm(folder: Path, gpus: int = 4) -> Iterator[dict[str, str]]:
    """
    Run a Slurm of one node, this machine, as long as the context lasts.

    Parameters
    ----------
    folder
        New or empty; with a short name, for it has a socket in it.
    gpus
        Number of GPUs; a job sees those it was given by CUDA_VISIBLE_DEVICES, and no CUDA finds them.

    Yields
    ------
    dict
        Environment in which Slurm's commands find it.

    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    for number in range(gpus):
        _make_gpu(folder / f"nvidia{number}")
    devices = f"{folder}/nvidia" + (f"[0-{gpus - 1}]" if gpus > 1 else "0")
    (folder / "gres.conf").write_text(f"AutoDetect=off\nName=gpu Type=fake File={devices} Flags=nvidia_gpu_env\n")
    controller, node = _free_ports(2)
    configuration = folder / "slurm.conf"
    configuration.write_text(
        _SLURM_CONF.format(folder=folder, controller=controller, node=node, cores=_CORES, gpus=gpus)
    )
    environment = {"SLURM_CONF": str(configuration)}
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    munge = [f"--{what}={folder}/munge.{end}" for what, end in _MUNGE.items()]
    with ExitStack() as running:
        running.enter_context(_daemon(["munged", "--foreground", "--force", *munge], folder, environment))
        _wait(folder, "munged", (folder / "munge.socket").exists)
        running.enter_context(_daemon(["slurmctld", "-D", "-i"], folder, environment))
        running.enter_context(_daemon(["slurmd", "-D", "-N", "localhost"], folder, environment))
        running.callback(_end_jobs, environment)
        _wait(folder, "slurmctld", lambda: ask(environment, "sinfo", "-h", "-o", "%T") == "idle")
        yield environment


class Use(NamedTuple):
    """A GPU, and the seconds from which and to which somebody used it."""

    gpu: str
    start: float
    end: float


def clashes(uses: Iterable[Use]) -> list[tuple[Use, Use]]:
    """Find pairs that used one GPU at one time."""
    ordered = sorted(uses, key=lambda use: use.start)
    return [
        (one, other)
        for place, one in enumerate(ordered)
        for other in ordered[place + 1 :]
        if one.gpu == other.gpu and other.start < one.end
    ]


def ask(environment: dict[str, str], *command: str) -> str:
    """What a command of Slurm prints; nothing where it fails."""
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def running(environment: dict[str, str]) -> dict[str, list[str]]:
    """Jobs that run, and the GPUs that Slurm bound to each."""
    found = {}
    for job in ask(environment, "scontrol", "show", "job", "-d", "-o").splitlines():
        about = dict(word.split("=", 1) for word in job.split() if "=" in word)
        if about.get("JobState") == "RUNNING" and (bound := re.search(r"GRES=gpu:fake:\d+\(IDX:([\d,-]+)\)", job)):
            found[about["JobId"]] = bound[1].split(",")
    return found


def kill_job(environment: dict[str, str], job: str) -> None:
    """Send kill -9 to the Python of a job, of which nothing is left to say so."""
    for line in ask(environment, "scontrol", "listpids", job).splitlines():
        pid = line.split()[0]
        if pid.isdigit() and b"execution" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(int(pid), signal.SIGKILL)


@contextmanager
def _daemon(command: list[str], folder: Path, environment: dict[str, str]) -> Iterator[None]:
    with (folder / f"{command[0]}.out").open("wb") as out:
        process = subprocess.Popen(
            command, env=os.environ | environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(_DAEMON_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _end_jobs(environment: dict[str, str]) -> None:
    """Let no job outlive the node: their processes are not children of this one."""
    ask(environment, "scancel", "--signal=KILL", "--full", "--user=root")
    ask(environment, "scancel", "--user=root")
    end = time.monotonic() + _DAEMON_TIMEOUT
    while ask(environment, "squeue", "-h") and time.monotonic() < end:
        time.sleep(0.2)


def _wait(folder: Path, program: str, ready: Callable[[], bool]) -> None:
    end = time.monotonic() + _DAEMON_TIMEOUT
    while not ready():
        if time.monotonic() > end:
            told = {path.name: path.read_text(errors="replace")[-1000:] for path in folder.glob("*.[lo][ou][gt]")}
            raise AssertionError(f"{program} is not up after {_DAEMON_TIMEOUT:g} s: {told}")
        time.sleep(0.1)


def _free_ports(number: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [each.getsockname()[1] for each in sockets]
