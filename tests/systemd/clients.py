"""Clients under load beside a scenario, and the judgement of what they saw."""

import json
import select
import subprocess
import sys
from pathlib import Path

from machines import Failed

# How long a client waits for a reply or a connection, seconds.
PATIENCE = 15
# How long it may take until all clients are served, seconds.
UNDER_WAY = 60


class Load:
    """Runs `load.py` in the network of the machines; a `with` block is its life."""

    def __init__(self, network, name, addresses, port):
        self.network, self.name, self.addresses, self.port = network, name, addresses, port
        self.seen = None
        self.process = None

    def __enter__(self):
        places = [f"{address}:{self.port}" for address in self.addresses]
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", self.network.switch, sys.executable,
             str(Path(__file__).with_name("load.py")), str(PATIENCE), self.name, *places],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        readable, _, _ = select.select([self.process.stdout], [], [], UNDER_WAY)
        if not readable or self.process.stdout.readline() != "under way\n":
            self.process.kill()
            raise Failed(f"clients were not served within {UNDER_WAY} s")
        return self

    def __exit__(self, kind, error, trace):
        try:
            self.end()
        except (Failed, subprocess.TimeoutExpired):
            self.process.kill()
            if kind is None:
                raise

    def end(self):
        """Stops the clients; gives what each saw, by its address."""
        if self.seen is None:
            out, _ = self.process.communicate(timeout=PATIENCE + 30)
            if self.process.returncode != 0:
                raise Failed(f"load.py ended with {self.process.returncode}")
            prefix = f"{self.name}:"
            self.seen = {key.removeprefix(prefix): seen for key, seen in json.loads(out).items()}
        return self.seen

    def summary(self):
        parts = []
        for address, seen in self.end().items():
            parts.append(
                f"{address}: {len(seen['acknowledged'])} acknowledged, {len(seen['errors'])} errors, "
                f"{seen['closed']} closed, {seen['refused']} refused, slowest {seen['slowest']} s")
        return "\n      ".join(parts)

    def nothing_lost(self, machine, address, but=0):
        """What was acknowledged is there (but for so many writes of a client), and nothing is twice."""
        for at, seen in self.end().items():
            said = machine.look("/opt/mainstay/bin/redis-cli", "-h", address, "-p", str(self.port),
                                "lrange", f"{self.name}:{at}", "0", "-1")
            try:
                there = [int(word) for word in said.split()]
            except ValueError as error:
                raise Failed(f"the list of {at} cannot be read: {said[:200]}") from error
            lost = sorted(set(seen["acknowledged"]) - set(there))
            if len(lost) > but:
                raise Failed(f"client of {at}: {len(lost)} acknowledged writes are lost: {lost[:10]}")
            if len(there) != len(set(there)):
                raise Failed(f"client of {at}: a write was carried out twice")
            if not seen["acknowledged"]:
                raise Failed(f"client of {at}: nothing was acknowledged")

    def undisturbed(self, *addresses, unknown=0):
        """Clients of these addresses got no error (but for so many whose outcome is not known), and no connection was
        closed or refused."""
        for address in addresses:
            seen = self.end()[address]
            bad = [error for error in seen["errors"] if not unknown or "outcome of this command is unknown" not in error]
            if bad or len(seen["errors"]) > unknown or seen["closed"] or seen["refused"]:
                raise Failed(f"a client of {address} was disturbed:\n      {self.summary()}\n"
                             f"      {seen['errors'][:3]}")
