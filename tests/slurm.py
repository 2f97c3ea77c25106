"""A SLURM cluster of two nodes on this machine, for tests; it listens on loopback only."""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")

# Every daemon writes into one folder; a job that ends with 75 is put into the queue again.
_CONFIG = """
ClusterName=jaxdl
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmctldPort={ports[0]}
SlurmctldParameters=cloud_reg_addrs
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/%n.pid
SlurmdSpoolDir={folder}/%n
SlurmdLogFile={folder}/%n.log
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
JobRequeue=1
RequeueExit=75
MpiDefault=none
SchedulerParameters=sched_interval=1,batch_sched_delay=0
MinJobAge=300
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=1000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=1000
PartitionName=all Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP OverSubscribe=FORCE:4
"""


def is_installed() -> bool:
  return os.geteuid() == 0 and all(map(shutil.which, PROGRAMS))


class Cluster:
  """Commands of a running cluster."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

  def run(self, *command: str, check: bool = True) -> str:
    """Runs a command of SLURM and returns what it prints."""
    done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
    if check and done.returncode:
      raise RuntimeError(f"{command}: {done.stderr}")
    return done.stdout.strip()

  def submit(self, script: str, *options: str) -> str:
    """Submits the text of a script and returns the number of its job."""
    file = self.folder / f"job-{time.monotonic_ns()}.sh"
    file.write_text(script)
    output = f"--output={self.folder}/%A_%a-%j.out"
    return self.run("sbatch", "--parsable", output, "--open-mode=append", *options, str(file))

  def states(self, job: str) -> dict[str, str]:
    """Returns the state of every task of a job, by what SLURM calls it."""
    lines = self.run("squeue", "--all", "--array", "-h", "--states=all", "-o", "%i %T", "-j", job)
    return dict(line.split() for line in lines.splitlines())

  def restarts(self, task: str) -> int:
    """Returns how often a task was put into the queue again."""
    text = self.run("scontrol", "show", "job", task)
    return int(text.partition("Restarts=")[2].split()[0])

  def wait(self, job: str, seconds: float = 240.0):
    """Waits until all tasks of a job have ended; raises unless they were completed."""
    last = time.monotonic() + seconds
    while (states := set(self.states(job).values())) != {"COMPLETED"}:
      if time.monotonic() > last or states & {"FAILED", "NODE_FAIL", "TIMEOUT", "OUT_OF_MEMORY"}:
        raise RuntimeError(f"job {job} is {states}: {self.output(job)}")
      time.sleep(0.3)

  def output(self, job: str) -> str:
    """Returns what the tasks of a job have printed."""
    files = self.folder.glob(f"{job}_*.out")
    return "\n".join(f"{file.name}: {file.read_text()[-2000:]}" for file in files)


@contextlib.contextmanager
def cluster():
  """Starts a cluster in a temporary folder; ends all of it afterwards, whatever happens."""
  # Not pytest's folder: the name of munge's socket must be short.
  folder = pathlib.Path(tempfile.mkdtemp(prefix="jaxdl-slurm-"))
  folder.chmod(0o755)
  processes: list[subprocess.Popen] = []
  here = Cluster(folder)
  try:
    _start_munge(folder, processes)
    for name in ("state", "n1", "n2"):
      (folder / name).mkdir()
    host = socket.gethostname().partition(".")[0]
    text = _CONFIG.format(host=host, folder=folder, user="root", ports=_free_ports(3))
    (folder / "slurm.conf").write_text(text)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}  # they write logs
    for command in (
      ("slurmctld", "-D"),
      ("slurmd", "-D", "-N", "n1"),
      ("slurmd", "-D", "-N", "n2"),
    ):
      processes.append(subprocess.Popen(command, env=here.environment, cwd=folder, **quiet))
    _wait_for_nodes(here)
    yield here
  finally:
    with contextlib.suppress(Exception):
      here.run("scancel", "--me", "--signal=KILL", "--full", check=False)
      here.run("scancel", "--me", check=False)
      time.sleep(1)
    for process in reversed(processes):
      process.terminate()
    for process in processes:
      try:
        process.wait(10)
      except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _kill_leftovers(folder)
    shutil.rmtree(folder, ignore_errors=True)


def _start_munge(folder: pathlib.Path, processes: list[subprocess.Popen]):
  """Starts the daemon by which the others know each other, with a key of its own."""
  place = folder / "munge"
  place.mkdir()
  (place / "key").write_bytes(os.urandom(128))
  (place / "key").chmod(0o400)
  command = (
    *("munged", "--foreground", f"--socket={place}/socket", f"--key-file={place}/key"),
    *(f"--pid-file={place}/pid", f"--log-file={place}/log", f"--seed-file={place}/seed"),
    *("--force", "--num-threads=2"),
  )
  processes.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
  _wait_until(lambda: (place / "socket").exists(), "munged")


def _wait_for_nodes(here: Cluster):
  def is_up():
    return here.run("sinfo", "-h", "-N", "-o", "%T", check=False).split() == ["idle", "idle"]

  _wait_until(is_up, "two nodes")


def _wait_until(condition, what: str, seconds: float = 60.0):
  last = time.monotonic() + seconds
  while not condition():
    if time.monotonic() > last:
      raise RuntimeError(f"waited {seconds:g} s for {what}")
    time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
  with contextlib.ExitStack() as stack:
    sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
    for one in sockets:
      one.bind(("127.0.0.1", 0))
    return [one.getsockname()[1] for one in sockets]


def _kill_leftovers(folder: pathlib.Path):
  """Kills what jobs have left running: all processes with this cluster's configuration."""
  mark = f"SLURM_CONF={folder}/".encode()
  for process in pathlib.Path("/proc").glob("[0-9]*"):
    with contextlib.suppress(OSError):
      if mark in (process / "environ").read_bytes() and int(process.name) != os.getpid():
        os.kill(int(process.name), signal.SIGKILL)
