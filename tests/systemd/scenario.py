"""What systemd and an operator do to a node, on three machines; run.sh runs this."""

import argparse
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

from clients import Load
from cluster import (DEMO, SOLID, UNITS, Cluster, engines, files, once_each, processes, show, states)
from machines import Failed, Machine, Network, until

# How long `systemctl stop` may take at most: TimeoutStopSec of the unit.
STOP = 180
# How many writes a client of load.py makes in a second, at most.
A_SECOND = 250


class Scenario:
    def __init__(self, cluster, network, cache, versions):
        self.cluster, self.network, self.cache = cluster, network, cache
        self.old, self.new = versions
        self.before = {}
        self.solid = 0

    def load(self, name):
        return Load(self.network, name, self.cluster.addresses(), DEMO)

    def tar(self, version):
        return self.cache / f"mainstay-{version}-linux-amd64.tar"

    def bring(self, machine, version):
        """A bundle as an operator has it: its tar in a folder of root's."""
        folder = machine.root / "root" / version
        folder.mkdir(exist_ok=True)
        shutil.copy(self.tar(version), folder)

    def judge(self, load, *undisturbed, failover=False):
        """What docs/replication.md promises: after a failover, what was in flight has one error, and writes of the
        last second before it may be gone."""
        load.end()
        print("      " + load.summary(), flush=True)
        load.undisturbed(*undisturbed, unknown=1 if failover else 0)
        load.nothing_lost(self.cluster[1], self.cluster[1].address, but=A_SECOND if failover else 0)

    def others(self, number):
        return [machine.address for machine in self.cluster.machines if machine.number != number]

    # The steps, in their order.

    def install(self):
        for machine in self.cluster.machines:
            self.before[machine.number] = files(machine)
            self.bring(machine, self.old)
            machine.session(f"cd {self.old} && tar xf mainstay-{self.old}-linux-amd64.tar && ./install.sh -y")
            for unit, state in states(machine).items():
                if state != ("enabled", "active"):
                    raise Failed(f"{machine.hostname}: {unit} is {state}")
            wanted = {"OOMPolicy": "continue", "KillMode": "process", "TasksMax": "infinity", "LimitNOFILE": "1048576"}
            for name, value in wanted.items():
                if show(machine, UNITS[0], name) != value:
                    raise Failed(f"{name} is {show(machine, UNITS[0], name)}")
        self.cluster.create()
        self.cluster.whole()
        # The node's own user may have port 53.
        for machine in self.cluster.machines:
            if "verify_discovery: warnings" in machine.look("rlcheck"):
                raise Failed("the name service does not answer:\n" + machine.look("rlcheck"))
        self.write_solid()

    def write_solid(self):
        """A hundred writes that are on disk when they are answered."""
        line = (f"for i in $(seq 100); do /opt/mainstay/bin/redis-cli -h {self.cluster[1].address} -p {SOLID} "
                "rpush solid $i; done | tail -n 1")
        self.solid += 100
        said = self.cluster[1].session(line).strip()
        if said != str(self.solid):
            raise Failed(f"'solid' has {said} writes, not {self.solid}")

    def killed_node(self):
        """kill -9 of the unit's main process: engines go on, daemons come back once, clients notice nothing."""
        self.cluster.give_primary_to(1)
        machine = self.cluster[1]
        before, had = engines(machine), int(show(machine, UNITS[0], "NRestarts"))
        with self.load("killed-node") as load:
            machine.session("kill -9 $(systemctl show -p MainPID --value mainstay)")
            until("systemd starts it again", lambda: int(show(machine, UNITS[0], "NRestarts")) == had + 1)
            until("each part runs once", lambda: once_each(machine))
            self.cluster.whole()
            if engines(machine) != before:
                raise Failed("engines did not stay")
            self.judge(load, *self.cluster.addresses())

    def killed_supervisord(self):
        machine = self.cluster[1]
        before, had = engines(machine), show(machine, UNITS[0], "MainPID")
        with self.load("killed-supervisord") as load:
            old = next(pid for pid, (_, words) in processes(machine).items() if "supervisor.supervisord" in words)
            machine.session(f"kill -9 {old}")
            until("another supervisord", lambda: old not in processes(machine) and once_each(machine))
            self.cluster.whole()
            if engines(machine) != before or show(machine, UNITS[0], "MainPID") != had:
                raise Failed("engines or mainstay-node did not stay")
            self.judge(load, *self.cluster.addresses())

    def restarted(self):
        """`systemctl restart`: primaries are elsewhere before engines stop; the node's own clients wait."""
        self.cluster.give_primary_to(1)
        machine = self.cluster[1]
        with self.load("restarted") as load:
            machine.session("systemctl restart mainstay", limit=STOP)
            until("each part runs once", lambda: once_each(machine))
            self.cluster.whole()
            self.judge(load, *self.others(1))
            seen = load.seen[machine.address]
            if seen["closed"] or seen["refused"]:
                raise Failed("clients of the restarted node were sent away")
        if self.cluster.primary("demo") == 1:
            raise Failed("the primary of demo did not leave")

    def stopped(self):
        """`systemctl stop`: nothing of the node is left, and its clients are sent away at once."""
        number = self.cluster.primary("demo")
        machine = self.cluster[number]
        survivor = self.cluster[number % 3 + 1]
        with self.load("stopped") as load:
            began = time.monotonic()
            machine.session("systemctl stop mainstay", limit=STOP)
            print(f"      stopped within {time.monotonic() - began:.1f} s", flush=True)
            left = processes(machine)
            if left:
                raise Failed(f"processes are left: {left}")
            if self.cluster.primary("demo", survivor) == number:
                raise Failed("the primary went down with its node")
            if states(machine)[UNITS[0]] != ("enabled", "inactive"):
                raise Failed(f"the unit is {states(machine)[UNITS[0]]}")
            journal = machine.look("journalctl", "--unit=mainstay", "--no-pager")
            if "given to other nodes: redis:" not in journal:
                raise Failed(f"the journal does not say what became of the primary:\n{journal}")
            machine.session("systemctl start mainstay")
            self.cluster.whole()
            self.judge(load, *self.others(number))
            seen = load.seen[machine.address]
            if seen["errors"] or not seen["closed"]:
                raise Failed(f"clients of the stopped node were not just sent away: {seen['errors'][:3]}")

    def stopped_by_command(self):
        """Told to stop by its own command, or by root's, the node stays down as well."""
        machine = self.cluster[3]
        for line in ("/opt/mainstay/current/bin/mainstay-node stop", "/opt/mainstay/sbin/mainstay-install stop"):
            machine.session(line, limit=STOP)
            until("the unit is down", lambda: states(machine)[UNITS[0]] == ("enabled", "inactive"), 10)
            # One that is about to be started again is "activating (auto-restart)", and never inactive.
            if processes(machine) or show(machine, UNITS[0], "SubState") != "dead":
                raise Failed(f"after '{line}' it runs again: {processes(machine)}")
            machine.session("/opt/mainstay/sbin/mainstay-install start")
            self.cluster.whole()

    def powered_off(self):
        """A machine goes down in order: its primaries leave first."""
        number = self.cluster.primary("demo")
        machine = self.cluster[number]
        with self.load("powered-off") as load:
            machine.power_off()
            machine.start()
            self.cluster.whole()
            self.judge(load, *self.others(number))

    def power_cut(self):
        """A machine is gone at once: its place is taken, and it comes back by itself."""
        number = self.cluster.primary("demo")
        machine = self.cluster[number]
        with self.load("power-cut") as load:
            machine.cut_power()
            survivor = self.cluster[number % 3 + 1]
            until("a replica takes over", lambda: self.cluster.primaries("demo", survivor) not in ([], [number]))
            machine.start()
            self.cluster.whole()
            self.judge(load, *self.others(number), failover=True)

    def blackout(self):
        """All machines are gone at once: what was promised to be on disk is there."""
        for machine in self.cluster.machines:
            machine.cut_power()
        for machine in self.cluster.machines:
            machine.start()
        self.cluster.whole()
        said = self.cluster[1].look("/opt/mainstay/bin/redis-cli", "-h", self.cluster[1].address, "-p", str(SOLID),
                                    "lrange", "solid", "0", "-1").split()
        if said != [str(i) for i in range(1, 101)] * (self.solid // 100):
            raise Failed(f"'solid' has {len(said)} writes, not {self.solid}")

    def logs(self):
        """The machine's own rotation of logs finds no fault."""
        machine = self.cluster[1]
        machine.session("logrotate --force /etc/logrotate.d/mainstay")
        machine.session("systemctl start logrotate.service")
        said = machine.look("ls", "/var/opt/mainstay/log")
        for name in ("install.log.1.gz", "mainstay-node.log.1.gz"):
            if name not in said:
                raise Failed(f"{name} is missing:\n{said}")

    def upgrade_one(self):
        """install.sh of the next release on the primary node, and the way back."""
        number = int(re.search(r"\d+", self.cluster[1].look("rladmin", "cluster", "master")).group())
        machine = self.cluster[number]
        self.bring(machine, self.new)
        had = show(machine, UNITS[0], "MainPID")
        before = engines(machine)
        with self.load("upgrade-one") as load:
            machine.session(f"cd {self.new} && tar xf mainstay-{self.new}-linux-amd64.tar && ./install.sh -y")
            self.cluster.whole()
            machine.session(f"cd {self.new} && ./install.sh --rollback")
            self.cluster.whole()
            if show(machine, UNITS[0], "MainPID") != had or engines(machine) != before:
                raise Failed("mainstay-node is another process, or engines were restarted")
            self.judge(load, *self.cluster.addresses())

    def upgrade_all(self):
        """One command for all nodes; root's attendant is restarted in the middle of a turn."""
        machine = self.cluster[2]
        self.bring(machine, self.new)
        engines_before = {m.number: engines(m) for m in self.cluster.machines}
        with self.load("upgrade-all") as load:
            machine.session(f"rladmin cluster upgrade start bundle /root/{self.new}/mainstay-{self.new}-linux-amd64.tar")
            at_work = until("a turn has begun", self.at_work, 120)
            at_work.session("systemctl restart mainstay-upgrade")
            machine.session("rladmin cluster upgrade watch", limit=600)
            self.cluster.whole()
            self.judge(load, *self.cluster.addresses())
        for machine in self.cluster.machines:
            if f"/releases/{self.new}/" not in machine.look("readlink", "-f", "/opt/mainstay/current/bin/rladmin"):
                raise Failed(f"{machine.hostname} does not run {self.new}")
            if engines(machine) != engines_before[machine.number]:
                raise Failed(f"engines of {machine.hostname} were restarted")
            if not once_each(machine) or set(states(machine).values()) != {("enabled", "active")}:
                raise Failed(f"{machine.hostname}: {states(machine)}, {processes(machine)}")

    def at_work(self):
        for machine in self.cluster.machines:
            if "mainstay-install install" in machine.look("ps", "-C", "mainstay-install", "-o", "args="):
                return machine
        return None

    def uninstall(self):
        for machine in reversed(self.cluster.machines):
            machine.session("/opt/mainstay/bin/rl_uninstall.sh -y")
            left = files(machine) - self.before[machine.number]
            if left:
                raise Failed(f"{machine.hostname}: left behind: {sorted(left)[:20]}")
            names = machine.look("getent", "passwd", "mainstay") + machine.look("getent", "group", "mainstay")
            units = machine.look("systemctl", "list-units", "--all", "--no-legend", "mainstay*")
            if names or units.strip() or machine.look("pgrep", "-a", "-f", "mainstay").strip():
                raise Failed(f"{machine.hostname}: left behind: {names}{units}")
            state = machine.look("systemctl", "is-system-running").strip()
            if state != "running":
                raise Failed(f"{machine.hostname} is {state}")

    def sockets_below_run(self):
        """Another place for everything: the folder of the sockets is gone after a start of the machine."""
        machine = self.cluster[3]
        machine.session(f"cd {self.old} && ./install.sh -y -s /run/sockets/mainstay --install-dir /srv/opt "
                        "--var-dir /srv/var")
        unit = machine.look("systemctl", "list-units", "--no-legend", "--plain", "mainstay-????????.service").split()[0]
        machine.power_off()
        machine.start()
        until("each part runs once", lambda: once_each(machine))
        if show(machine, unit, "ActiveState") != "active" or show(machine, unit, "NRestarts") != "0":
            raise Failed(machine.look("systemctl", "status", "--no-pager", unit))
        machine.session("/srv/opt/mainstay/bin/rl_uninstall.sh -y")
        left = files(machine) - self.before[machine.number]
        if left:
            raise Failed(f"left behind: {sorted(left)[:20]}")

    STEPS = ("install", "killed_node", "killed_supervisord", "restarted", "stopped", "stopped_by_command",
             "powered_off", "power_cut", "blackout", "logs", "upgrade_one", "upgrade_all", "uninstall", "sockets_below_run")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--versions", nargs=2, required=True)
    parser.add_argument("--no-build", action="store_true")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--only", choices=Scenario.STEPS, action="append")
    options = parser.parse_args()

    folder = Path(tempfile.mkdtemp(prefix="mainstay-systemd-", dir="/var/tmp"))
    logs = options.cache / "logs"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir()
    network, machines, failed = None, [], True
    try:
        network = Network(f"ms{os.getpid()}", 3)
        for number in (1, 2, 3):
            machines.append(Machine(number, folder, options.cache / "debian", network, logs))
            machines[-1].start()
        scenario = Scenario(Cluster(machines), network, options.cache, options.versions)
        for step in Scenario.STEPS:
            if options.only and step not in ("install", *options.only):
                continue
            print(f"==> {step.replace('_', ' ')}", flush=True)
            began = time.monotonic()
            getattr(scenario, step)()
            print(f"    {step.replace('_', ' ')}: {time.monotonic() - began:.0f} s", flush=True)
        failed = False
    except Failed as error:
        print(f"run.sh: {error}", file=sys.stderr)
    finally:
        keep_logs(machines, folder, logs)
        if options.keep:
            for machine in machines:
                print(f"{machine.hostname}: nsenter --all --target {machine.first()}", flush=True)
            sys.stdin.readline()
        clean_up(machines, network, folder)
    print(f"==> {'failed; ' if failed else ''}logs in {logs}", flush=True)
    return 1 if failed else 0


def keep_logs(machines, folder, logs):
    """What the machines said, before they are gone."""
    for machine in machines:
        source = machine.root / "var/opt/mainstay/log"
        if source.is_dir():
            shutil.copytree(source, logs / machine.hostname, dirs_exist_ok=True)
        try:
            text = machine.look("journalctl", "--no-pager", "--boot")
            (logs / f"{machine.hostname}.journal").write_text(text, encoding="utf-8")
        except Failed:
            pass
    if (folder / "sessions.log").exists():
        shutil.copy(folder / "sessions.log", logs)


def clean_up(machines, network, folder):
    for machine in machines:
        try:
            machine.remove()
        except Failed as error:
            print(f"run.sh: {error}", file=sys.stderr)
    if network:
        network.remove()
    shutil.rmtree(folder, ignore_errors=True)


sys.exit(main())
