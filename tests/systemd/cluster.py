"""What an operator does and sees on the machines."""

import re

from machines import Failed, until

UNITS = ("mainstay.service", "mainstay-upgrade.service")
PASSWORD = "correct-horse-9"
EVERYBODY = "username admin@example.com password " + PASSWORD
# A database with replication, and one without whose every write goes to disk before it is answered.
DEMO, SOLID = 12000, 12001


class Cluster:
    def __init__(self, machines):
        self.machines = machines

    def __getitem__(self, number):
        return self.machines[number - 1]

    def addresses(self):
        return [machine.address for machine in self.machines]

    def create(self):
        """As README.md says."""
        first, *others = self.machines
        said = first.session(f"rladmin cluster create name cluster.example.com {EVERYBODY}")
        fingerprint = re.search(r"(?:[0-9A-F]{2}:){31}[0-9A-F]{2}", said)
        if not fingerprint:
            raise Failed(f"'cluster create' shows no fingerprint:\n{said}")
        for machine in others:
            machine.session(f"rladmin cluster join nodes {first.address} {EVERYBODY} "
                            f"ca_fingerprint {fingerprint.group()}")
        first.session(f"rladmin create db demo memory_size 256MB port {DEMO} proxy_policy all-nodes "
                      "replication enabled persistence aof")
        first.session(f"rladmin create db solid memory_size 128MB port {SOLID} proxy_policy all-nodes "
                      "persistence aof-every-write")

    def shards(self, at):
        """(database, shard, node, role, status) of each, as a node shows them."""
        found = []
        for line in at.look("rladmin", "status", "shards").splitlines():
            words = line.split()
            if line.startswith("db:") and len(words) >= 7:
                found.append((words[1], words[2], int(words[3].removeprefix("node:")), words[4],
                              " ".join(words[7:])))
        return found

    def primaries(self, database, at):
        """Numbers of the nodes that have a database's primary, as a machine sees it."""
        return [node for name, _, node, role, _ in self.shards(at) if name == database and role == "master"]

    def primary(self, database, at=None):
        """Number of the node that has a database's primary."""
        places = self.primaries(database, at or self.machines[0])
        if len(places) != 1:
            raise Failed(f"{database} has {len(places)} primaries")
        return places[0]

    def is_whole(self):
        said = self.machines[0].look("rladmin", "status")
        nodes = [line for line in said.splitlines() if re.match(r"\*?node:", line)]
        shards = self.shards(self.machines[0])
        return (len(nodes) == len(self.machines) and all(line.rstrip().endswith(" OK") for line in nodes)
                and len(shards) == 3 and all(shard[4] == "OK" for shard in shards)
                and sum(shard[3] == "slave" for shard in shards) == 1
                and "issues:" not in said and "NO QUORUM" not in said)

    def whole(self, limit=90):
        """Waits until nodes and shards are well, here and by rlcheck; and so are the machines."""
        try:
            until("the cluster is whole", self.is_whole, limit, 0.5)
        except Failed as error:
            raise Failed(f"{error}\n" + self.machines[0].look("rladmin", "status", "extra", "all")) from error
        for machine in self.machines:
            until(f"rlcheck on {machine.hostname}:\n", lambda at=machine: "ALL TESTS PASSED" in at.look("rlcheck"),
                  30, 1)
            state = machine.look("systemctl", "is-system-running").strip()
            if state != "running":
                raise Failed(f"{machine.hostname} is {state}:\n" + machine.look("systemctl", "--failed", "--no-pager"))

    def give_primary_to(self, number):
        """Has the node be the one with demo's primary."""
        if self.primary("demo") != number:
            shard = next(s[1] for s in self.shards(self.machines[0]) if s[0] == "demo" and s[3] == "master")
            self.machines[0].session(f"rladmin failover shard {shard.removeprefix('redis:')} immediate")
        if self.primary("demo") != number:
            raise Failed(f"the primary of demo did not come to node:{number}")


def processes(machine):
    """pid → (age in seconds, words) of what the OS user runs."""
    found = {}
    for line in machine.look("ps", "-u", "mainstay", "-o", "pid=,etimes=,args=").splitlines():
        pid, age, *words = line.split()
        if pid.isdigit():
            found[int(pid)] = (int(age), " ".join(words))
    return found


def engines(machine):
    return {pid for pid, (_, words) in processes(machine).items() if "/engines/" in words}


def once_each(machine):
    """Whether every part of the node runs exactly once."""
    words = [words for _, words in processes(machine).values()]

    def count(text):
        return sum(text in each for each in words)

    return (count("bin/mainstay-node") == 1 and count("supervisor.supervisord") == 1 and count("bin/cnm_exec") == 1
            and count("bin/cnm_http") == 1 and count("bin/dmcproxy server") == 1 and count("bin/dmcproxy") == 2)


def show(machine, unit, name):
    return machine.look("systemctl", "show", f"--property={name}", "--value", unit).strip()


def states(machine):
    """What systemd says of the units."""
    return {unit: (machine.look("systemctl", "is-enabled", unit).strip(),
                   machine.look("systemctl", "is-active", unit).strip()) for unit in UNITS}


def files(machine):
    """Files and folders that the machine has beyond, or otherwise than, the root folder; not what every machine
    writes of its own accord, or programs of the host's leave behind (copies of the list of users)."""
    own = re.compile(
        r"(var/log/journal|var/lib/systemd|var/lib/dbus|var/lib/logrotate|var/log/wtmp|var/log/btmp|var/log/lastlog"
        r"|root|tmp|var/tmp|run|etc/machine-id|etc/resolv.conf|etc/hostname|etc/\.pwd\.lock|etc/\.updated|var/\.updated"
        r"|etc/(passwd|group|shadow|gshadow|subuid|subgid)-?|var/cache/ldconfig|dev|proc|sys)(/|$)")
    found = set()
    for path in machine.upper.rglob("*"):
        inside = str(path.relative_to(machine.upper))
        if not own.match(inside) and not (path.is_dir() and (machine.base / inside).is_dir()):
            found.add(inside)
    return found
