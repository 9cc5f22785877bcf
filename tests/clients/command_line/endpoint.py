"""An endpoint, the tools that are run against it, and what they must say."""

import os
import socket
import subprocess
from pathlib import Path

# A tool runs at most so long, seconds.
PATIENCE = 30


class Endpoint:
    def __init__(self, target, tool, run, scenario):
        self.target, self.tool, self.prefix = target, tool, f"cli:{run}:{scenario}:"
        self.password = target["password"]

    @property
    def folder(self):
        return Path(os.environ["ENGINES"]) / self.tool[0]

    @property
    def environment(self):
        """Of a tool: where its libraries are, and a terminal that it knows."""
        return {**os.environ, "LD_LIBRARY_PATH": str(self.folder / "lib"), "TERM": "xterm", "HOME": "/nonexistent"}

    def words(self, node=0):
        program = self.folder / "bin" / self.tool[1]
        words = [str(program), "-h", self.target["endpoint"][node], "-p", str(self.target["port"])]
        return words + (["-a", self.password, "--no-auth-warning"] if self.password else [])

    def cli(self, *words, given=None, node=0, code=0, patience=PATIENCE):
        """Runs the tool; returns what it printed. `code` None: it may end with any."""
        done = subprocess.run(
            [*self.words(node), *words],
            input=given if given is not None else b"",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=patience,
            env=self.environment,
        )
        text = done.stdout.decode(errors="replace")
        if code is not None:
            equal(done.returncode, code, f"{words} printed {text[:300]}; its exit code")
        return text.strip("\n")

    def socket(self, direct=False):
        host = self.target["direct" if direct else "endpoint"][0]
        connection = socket.create_connection((host, self.target["port"]), timeout=PATIENCE)
        if self.password:
            connection.sendall(command("AUTH", self.password))
            equal(read(connection, b"+OK\r\n"), b"+OK\r\n", "AUTH")
        return connection


def equal(got, wanted, what):
    if got != wanted:
        raise AssertionError(f"{what}: got {str(got)[:300]!r}, expected {str(wanted)[:300]!r}")


def true(condition, what):
    if not condition:
        raise AssertionError(what)


def command(*words):
    words = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def read(connection, end):
    """Reads until the answer ends so, or the connection does."""
    got = b""
    while not got.endswith(end):
        part = connection.recv(65536)
        if not part:
            return got + b"<closed>"
        got += part
    return got
