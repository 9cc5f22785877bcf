"""Machines of their own: a Debian 12 whose first process is a real systemd, in namespaces of this kernel.

Each machine is a systemd-nspawn container over a shared, read-only root folder: its own files, processes, users,
network stack and cgroup tree (unified, as Debian 12 has it). A bridge in a network namespace of its own joins them,
and nothing of it is seen from outside. The unified tree has no memory controller where the host uses it elsewhere.
"""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

# What the programs of an operator's session find.
ENVIRONMENT = [
    "env", "-i", "HOME=/root", "LANG=C.UTF-8", "TERM=dumb",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
]
# How long a machine may take to come up, and to go down in order (the unit may take 180 s), seconds.
UP = 90
DOWN = 240
# What systemd understands as "power off": SIGRTMIN+4.
POWER_OFF = signal.SIGRTMIN + 4


# Whether systemd runs the host too: then it gives each machine its cgroup.
HOST_HAS_SYSTEMD = Path("/run/systemd/system").is_dir()


class Failed(Exception):
    """Something is not as it must be."""


def command(*words):
    """Runs a program of the host, which must succeed."""
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout


def until(what, check, limit=60, pause=0.1):
    """Waits until `check` gives something that is true, and gives it."""
    deadline = time.monotonic() + limit
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() >= deadline:
            raise Failed(f"not within {limit} s: {what}")
        time.sleep(pause)


def trees():
    """Where the host has the cgroup trees that systemd counts processes in."""
    found = []
    for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines():
        _, place, kind, options, *_ = line.split()
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            found.append(Path(place))
    return found


def removed(group):
    """Removes a cgroup with all below it; says whether that was possible."""
    for folder, _, _ in os.walk(group, topdown=False):
        try:
            os.rmdir(folder)
        except OSError:
            return False
    return True


class Network:
    """A bridge in a network namespace, and one more namespace for each machine."""

    def __init__(self, name, machines):
        self.name = name
        self.switch = f"{name}-switch"
        self.made = []
        self.make(self.switch)
        inside = ["ip", "-n", self.switch]
        command(*inside, "link", "add", "bridge", "type", "bridge")
        command(*inside, "addr", "add", "10.77.0.1/24", "dev", "bridge")
        command(*inside, "link", "set", "bridge", "up")
        for number in range(1, machines + 1):
            space = f"{name}-{number}"
            self.make(space)
            command("ip", "-n", space, "link", "add", "eth0", "type", "veth",
                    "peer", "name", f"port{number}", "netns", self.switch)
            command("ip", "-n", space, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
            command("ip", "-n", space, "link", "set", "eth0", "up")
            command("ip", "-n", space, "route", "add", "default", "via", "10.77.0.1")
            command(*inside, "link", "set", f"port{number}", "master", "bridge", "up")

    @staticmethod
    def address(number):
        return f"10.77.0.{10 + number}"

    def make(self, space):
        command("ip", "netns", "add", space)
        self.made.append(space)
        command("ip", "-n", space, "link", "set", "lo", "up")

    def remove(self):
        for space in reversed(self.made):
            subprocess.run(["ip", "netns", "delete", space], check=False)


class Machine:
    """One machine. It is started and ended as often as one likes; its files stay."""

    def __init__(self, number, folder, base, network, logs):
        self.number = number
        self.hostname = f"node{number}"
        self.address = network.address(number)
        self.space = f"{network.name}-{number}"
        self.folder = folder / self.hostname
        self.root = self.folder / "root"
        self.upper = self.folder / "files"
        self.console = logs / f"{self.hostname}.console.log"
        self.outer = None
        for path in (self.root, self.upper, self.folder / "work"):
            path.mkdir(parents=True)
        self.base = base
        self.groups = [] if HOST_HAS_SYSTEMD else [top / self.space for top in trees()]
        self.mount()

    def mount(self):
        options = f"lowerdir={self.base},upperdir={self.upper},workdir={self.folder / 'work'}"
        command("mount", "-t", "overlay", "-o", options, "overlay", str(self.root))
        (self.root / "etc/hostname").write_text(f"{self.hostname}\n", encoding="utf-8")

    def start(self):
        """Presses the button; gives the machine back when systemd says that it runs."""
        words = ["systemd-nspawn", "--quiet", "--boot", "--register=no", "--console=read-only",
                 # The unit raises limits, as on a machine that is none of ours.
                 "--capability=CAP_SYS_RESOURCE",
                 f"--directory={self.root}", f"--machine={self.space}", f"--hostname={self.hostname}",
                 f"--network-namespace-path=/run/netns/{self.space}",
                 "--link-journal=no", "--resolv-conf=off", "--timezone=off"]
        if self.groups:
            # Nobody gives it a cgroup of its own: it is started in one, or all machines would share one tree.
            enter = "; ".join(f"echo $$ > {group}/cgroup.procs" for group in self.groups)
            words = ["/bin/sh", "-e", "-c", f'{enter}; exec "$@"', "sh", *words, "--keep-unit"]
            for group in self.groups:
                group.mkdir(exist_ok=True)
        with open(self.console, "a", encoding="utf-8") as log:
            self.outer = subprocess.Popen(
                words, env={**os.environ, "UNIFIED_CGROUP_HIERARCHY": "1"},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        until(f"{self.hostname} runs (see {self.console})", self.runs, UP)
        return self

    def runs(self):
        if self.outer.poll() is not None:
            raise Failed(f"systemd-nspawn ended with {self.outer.returncode}: see {self.console}")
        if self.first() is None:
            return False
        state = self.look("systemctl", "is-system-running").strip()
        if state in ("degraded", "maintenance"):
            raise Failed(f"{self.hostname} is {state}:\n" + self.look("systemctl", "--failed", "--no-pager"))
        return state == "running"

    def first(self):
        """The process, in the numbers of the host, that is the machine's first."""
        path = f"/proc/{self.outer.pid}/task/{self.outer.pid}/children"
        try:
            children = Path(path).read_text(encoding="utf-8").split()
        except OSError:
            return None
        return int(children[0]) if children else None

    def inside(self):
        first = self.first()
        if first is None:
            raise Failed(f"{self.hostname} does not run")
        spaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--root", "--wd"]
        return ["nsenter", "--target", str(first), *spaces, *ENVIRONMENT]

    def look(self, *words):
        """What a program says inside, however it ends: for looking only, it belongs to no unit."""
        done = subprocess.run([*self.inside(), *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False, timeout=60)
        return done.stdout

    def session(self, line, code=0, limit=400):
        """A line of an operator's shell, in a unit of its own: what is left of it when it ends is killed.
        Gives what it said; `code` is how it must end (None: however)."""
        done = subprocess.run(
            [*self.inside(), "systemd-run", "--quiet", "--pipe", "--wait", "--collect",
             "--service-type=exec", "--property=KillMode=control-group", "--working-directory=/root",
             "/bin/sh", "-c", line],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            check=False, timeout=limit)
        with open(self.folder.parent / "sessions.log", "a", encoding="utf-8") as log:
            log.write(f"--- {time.strftime('%T')} {self.hostname}# {line}\n{done.stdout}[{done.returncode}]\n")
        if code is not None and done.returncode != code:
            raise Failed(f"{self.hostname}: {line}: exit code {done.returncode}, not {code}\n{done.stdout}")
        return done.stdout

    def power_off(self):
        """In order, as `systemctl poweroff` or the button do."""
        os.kill(self.first(), POWER_OFF)
        self.gone(DOWN)

    def cut_power(self):
        """Everything in it is gone at once, and nothing is told."""
        if self.outer is None or self.outer.poll() is not None:
            return
        first = self.first()
        if first is not None:
            os.kill(first, signal.SIGKILL)
        self.gone(30)

    def gone(self, limit):
        try:
            self.outer.wait(limit)
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{self.hostname} is not down after {limit} s: see {self.console}") from error
        for group in self.groups:
            until(f"{group} is empty", lambda at=group: removed(at), 30)

    def remove(self):
        try:
            self.cut_power()
        finally:
            if self.outer is not None and self.outer.poll() is None:
                self.outer.kill()
                self.outer.wait()
            subprocess.run(["umount", str(self.root)], check=False)
            shutil.rmtree(self.folder, ignore_errors=True)
