"""What redis-cli and valkey-cli do in a terminal: hints, subscribed mode, displays that go on."""

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time

from endpoint import PATIENCE, true


class Terminal:
    """A tool in a terminal of its own."""

    def __init__(self, e, *words):
        self.seen = ""
        program, *rest = e.words()
        self.pid, self.side = pty.fork()
        if self.pid == 0:
            # Nothing of this program may go on in the child.
            try:
                os.execve(program, [program, *rest, *words], e.environment)
            finally:
                os._exit(127)
        fcntl.ioctl(self.side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 0, 0))

    def type(self, text):
        """Types what a person would after a prompt; what was seen before is forgotten."""
        self.seen = ""
        os.write(self.side, text.encode())

    def shows(self, *texts):
        """Waits until it has shown these, in this order; returns what it showed since something was typed."""
        end = time.monotonic() + PATIENCE
        while not self.found(texts):
            left = end - time.monotonic()
            ready, _, _ = select.select([self.side], [], [], max(left, 0))
            true(ready, f"it does not show {texts} but {self.seen[-300:]!r}")
            try:
                part = os.read(self.side, 65536)
            except OSError:
                part = b""
            true(part, f"it ended without {texts}: {self.seen[-300:]!r}")
            self.seen += part.decode(errors="replace")
        return self.seen

    def found(self, texts):
        at = 0
        for text in texts:
            at = self.seen.find(text, at)
            if at < 0:
                return False
            at += len(text)
        return True

    def ends(self):
        """Waits until it has ended by itself."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                if select.select([self.side], [], [], 0.01)[0]:
                    os.read(self.side, 65536)
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
        raise AssertionError("it does not end")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.side)


def typed_commands(e):
    k = e.prefix
    with Terminal(e) as terminal:
        terminal.shows("> ")
        terminal.type(f"set {k}a ")
        # A hint: the tool knows the command's syntax, or asks for it.
        terminal.shows("EX seconds")
        terminal.type("1\r")
        terminal.shows("\nOK", "> ")
        terminal.type(f"incr {k}a\r")
        terminal.shows("(integer) 2", "> ")
        terminal.type("multi\r")
        terminal.shows("OK", "(TX)> ")
        terminal.type(f"incr {k}a\r")
        terminal.shows("QUEUED", "(TX)> ")
        terminal.type("exec\r")
        terminal.shows("1) (integer) 3", "> ")
        terminal.type("help zadd\r")
        terminal.shows("ZADD", "sorted set", "> ")
        if e.target["shards"] == 1:
            terminal.type("select 2\r")
            terminal.shows("OK", "[2]> ")
        terminal.type("shutdown\r")
        terminal.shows("not available", "\n", "> ")
        terminal.type("exit\r")
        true(terminal.ends() == 0, "it ended well")


def subscribed(e):
    k = e.prefix
    with Terminal(e) as terminal:
        terminal.shows("> ")
        terminal.type(f"subscribe {k}c\r")
        # The older tools say that they read messages before they have subscribed.
        terminal.shows("subscribe", "(integer) 1")
        terminal.seen = ""
        e.cli("PUBLISH", k + "c", "hello", node=2)
        terminal.shows('"hello"')
        if e.tool[1] == "valkey-cli":
            # This tool takes commands meanwhile, in a mode of its own.
            for words, shown in [
                (f"subscribe {k}d", "(integer) 2"),
                (f"unsubscribe {k}d", "(integer) 1"),
                ("unsubscribe", "(integer) 0"),
                ("ping", "PONG"),
            ]:
                # The first key ends the reading of messages.
                terminal.type(words[0])
                terminal.shows("(subscribed mode)> ")
                terminal.type(words[1:] + "\r")
                terminal.shows("\n", shown, "Reading messages")


def displays(e):
    """They go on until they are stopped."""
    with Terminal(e, "--stat", "-i", "0.05") as terminal:
        terminal.shows("requests", "connections", "\n", "\n", "\n")
    for mode in ("--latency", "--latency-history"):
        with Terminal(e, mode, "-i", "1") as terminal:
            terminal.shows("min: ", "avg: ", "(5 samples)")
    # It prints a legend first, then a line of colours for each interval.
    with Terminal(e, "--latency-dist", "-i", "0.1") as terminal:
        terminal.shows("milliseconds", "seconds", "\n", "\n", "\n")


SCENARIOS = [typed_commands, subscribed, displays]
