"""A SLURM of two nodes on this machine, for tests; it needs root and Debian's slurmctld, slurmd, slurm-client and munge.

Each node daemon has a host name and an /etc/hosts of its own, in namespaces of its own, so that names of nodes resolve inside
jobs; a version without several daemons a host would refuse two nodes of one name. Not a test itself.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

NODES = ("alpha", "beta")
DAEMONS = ("slurmctld", "slurmd", "munged", "sbatch", "unshare")
CONFIGURATION = """
ClusterName=jaxvision
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge/socket
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool.%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd.%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,bf_interval=1,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
KillWait=10
MessageTimeout=5
NodeName=alpha NodeHostname=alpha NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=4000 State=UNKNOWN
NodeName=beta NodeHostname=beta NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES State=UP PriorityTier=1 GraceTime=60
PartitionName=urgent Nodes=ALL State=UP PriorityTier=2 PreemptMode=OFF
"""


class Cluster:
    """The daemons and how to talk to them; a context manager."""

    def __init__(self, root: Path):
        self.root = root
        self.environment = {**os.environ, "SLURM_CONF": str(root / "slurm.conf")}

    def __enter__(self):
        path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
        missing = [name for name in DAEMONS if shutil.which(name, path=path) is None]
        assert not missing, f"not installed: {missing}; apt-get install slurmctld slurmd slurm-client munge"
        assert os.geteuid() == 0, "SLURM's daemons and their namespaces need root"
        self.environment["PATH"] = path
        (self.root / "state").mkdir(parents=True)
        text = CONFIGURATION.format(root=self.root, host=socket.gethostname().split(".")[0], ports=free_ports(3))
        (self.root / "slurm.conf").write_text(text)
        try:
            self._start_munge()
            self.start_controller()
            for node in NODES:
                self._start_node(node)
            wait_until(
                lambda: self.run("sinfo", "-h", "-N", "-t", "idle", "-p", "main", "-o", "%N").split() == [*NODES]
            )
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start_munge(self):
        folder = self.root / "munge"
        folder.mkdir(mode=0o711)
        (folder / "key").write_bytes(os.urandom(1024))
        (folder / "key").chmod(0o400)
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        flags = [f"--{flag}={folder / name}" for flag, name in files.items()]
        self.run("munged", "--force", *flags)

    def start_controller(self):
        self.run("slurmctld")

    def stop_controller(self):
        stop(self.root / "slurmctld.pid", "slurmctld")

    def _start_node(self, name):
        hosts = self.root / "hosts"
        hosts.write_text(f"{Path('/etc/hosts').read_text()}\n127.0.0.1 {' '.join(NODES)}\n")
        (self.root / f"spool.{name}").mkdir()
        script = 'hostname "$1" && mount --bind "$2" /etc/hosts && exec slurmd -N "$1"'
        self.run("unshare", "--uts", "--mount", "--", "sh", "-c", script, "sh", name, str(hosts))

    def run(self, *command, **options):
        """What a command of SLURM prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60, **options)
        assert done.returncode == 0, (command, done.stdout, done.stderr, self.logs())
        return done.stdout

    def queue(self):
        """State of every job that has not ended, by its number."""
        lines = self.run("squeue", "--noheader", "--array", "--format=%i %T").splitlines()
        return dict(line.split() for line in lines)

    def logs(self):
        return {path.name: path.read_text(errors="replace")[-1500:] for path in self.root.glob("*.log")}

    def __exit__(self, *error):
        with suppress(AssertionError, subprocess.TimeoutExpired):
            self.run("scancel", "--signal=KILL", "--full", "--user=root")
            self.run("scancel", "--user=root")
            wait_until(lambda: not self.queue(), 15)
        for node in NODES:
            stop(self.root / f"slurmd.{node}.pid", "slurmd")
        self.stop_controller()
        stop(self.root / "munge/pid", "munged")


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def stop(file, name):
    """Ends the daemon of a file that holds its number, if it is one of this name."""
    with suppress(OSError, ValueError):
        number = int(file.read_text())
        comm = Path(f"/proc/{number}/comm")
        if comm.read_text().strip() != name:
            return
        os.kill(number, signal.SIGTERM)
        with suppress(AssertionError):
            return wait_until(lambda: not comm.exists(), 10)
        os.kill(number, signal.SIGKILL)


def wait_until(condition, seconds=60):
    """Returns when the condition holds.

    Raises:
      AssertionError: if it does not within this time.
    """
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"it was not so within {seconds} s"
        time.sleep(0.2)
    return found
