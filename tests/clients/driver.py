"""Brings up a cluster, databases and engines to compare with, runs the programs, adds up."""

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
BUILD = HERE.parents[1] / "target"
ENGINES = Path(os.environ.get("MAINSTAY_ENGINES_DIR", BUILD / "engines"))
CACHE = BUILD / "clients"
# Longest run of one program, seconds: beyond it something hangs.
PROGRAM_MAX = 180
# Programs at once: they share the databases, each under names of its own.
AT_ONCE = 3

# The policy with which an engine counts how often keys are used.
LFU = "allkeys-lfu"
# name, engine folder, version for rladmin, port, password, further words for rladmin
DATABASES = [
    ("redis-6.2", "redis-6.2.14", "6.2", 12062, None, []),
    ("redis-7.0", "redis-7.0.15", "7.0", 12070, "correct horse", ["eviction_policy", LFU]),
    ("valkey-8.0", "valkey-8.0.1", "8.0", 12080, None, ["persistence", "aof"]),
    ("valkey-9.1", "valkey-9.1.2", "9.1", 12091, None, []),
    # Keys of a scenario have a hash tag, so that each runs on one of the shards, as on one engine.
    (
        "four-shards",
        "valkey-9.1.2",
        "9.1",
        12094,
        None,
        ["shards_count", "4", "shards_placement", "sparse", "eviction_policy", LFU],
    ),
]

PYTHON = [sys.executable, str(HERE / "python/program.py")]
NODE = ["node", "--no-warnings", str(HERE / "node/program.mjs")]
TASKS = [sys.executable, str(HERE / "python/queues.py")]
QUEUES = ["node", "--no-warnings", str(HERE / "node/queues.mjs")]
RUST = [str(CACHE / "rust/debug/client-programs")]
# The longest first.
PROGRAMS = {
    "command-line": [sys.executable, str(HERE / "command_line/program.py")],
    "redis-py-resp2": [*PYTHON, "redis", "2"],
    "redis-py-resp3": [*PYTHON, "redis", "3"],
    "valkey-py": [*PYTHON, "valkey", "2"],
    "valkey-py-resp3": [*PYTHON, "valkey", "3"],
    "celery": [*TASKS, "celery"],
    "redis-rs": [*RUST, "2"],
    "redis-rs-resp3": [*RUST, "3"],
    "node-redis": [*NODE, "node_redis", "2"],
    "node-redis-resp3": [*NODE, "node_redis", "3"],
    "bullmq": [*QUEUES, "ioredis"],
    "bullmq-node-redis": [*QUEUES, "node_redis"],
    "ioredis": [*NODE, "ioredis", "2"],
    "rq": [*TASKS, "rq"],
    "finding": [sys.executable, str(HERE / "python/finding.py")],
    "finding-node": ["node", "--no-warnings", str(HERE / "node/finding.mjs")],
}

# Programs that do not run on every target: the other version of the protocol, or a like library, has its turn
# there.
ONLY_ON = {
    "valkey-py": {"redis-6.2", "valkey-8.0"},
    "valkey-py-resp3": {"redis-7.0", "valkey-9.1", "four-shards"},
    "redis-rs": {"redis-6.2", "valkey-8.0", "four-shards"},
    "redis-rs-resp3": {"redis-7.0", "valkey-9.1", "four-shards"},
    "bullmq": {"redis-6.2", "valkey-8.0", "four-shards"},
    "bullmq-node-redis": {"redis-7.0", "valkey-9.1", "four-shards"},
    "celery": {"redis-7.0", "valkey-9.1", "four-shards"},
    # Not over several shards: nothing keeps its keys on one of them.
    "rq": {"redis-6.2", "valkey-8.0"},
}


def take_network():
    """A network 127.x.y.0/24, locked as the other tests do it. Returns its prefix and the lock."""
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / "mainstay-test-networks"
    folder.mkdir(exist_ok=True)
    for number in range(1000):
        prefix = f"127.{100 + number // 250}.{1 + number % 250}"
        lock = open(folder / prefix, "a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return prefix, lock
        except OSError:
            lock.close()
    sys.exit("every test network is taken")


def wait_for(what, condition, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.02)
    raise TimeoutError(f"{what}: not within {seconds} s")


def listens(address, port):
    with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
        return True
    return False


class Stand:
    """A cluster with its databases, and an engine of each version that clients reach directly."""

    def __init__(self):
        self.network, self.lock = take_network()
        self.root = Path(tempfile.mkdtemp(prefix="mst-clients-", dir="/var/tmp"))
        self.test_cluster = BUILD / "debug/test-cluster"
        self.engines = []

    def up(self):
        # The nodes keep the lock of the network for as long as they run.
        self.run(
            [self.test_cluster, "up", "--root", self.root / "c", "--base", self.network],
            pass_fds=[self.lock.fileno()],
        )
        rladmin = self.root / "c/n1/opt/current/bin/rladmin"
        for name, _, version, port, password, words in DATABASES:
            memory = "1GB" if "shards_count" in words else "256MB"
            words = ["port", str(port), "redis_version", version, *words]
            if password:
                words += ["password", password]
            self.run(
                [rladmin, "create", "db", name, "memory_size", memory, "proxy_policy", "all-nodes", *words]
            )
        for name, folder, _, port, password, words in DATABASES:
            self.start_engine(name, ENGINES / folder, port, password, LFU in words)
        addresses = [f"{self.network}.{last}" for last in (11, 12, 13)]
        for _, _, _, port, _, _ in DATABASES:
            for address in [*addresses, f"{self.network}.9"]:
                wait_for(f"{address}:{port}", lambda: listens(address, port))
        return [
            {
                "name": name,
                "engine": [int(part) for part in version.split(".")],
                "password": password,
                "port": port,
                "endpoint": addresses,
                "direct": [f"{self.network}.9"],
                "frequencies": LFU in words,
                "shards": 4 if "shards_count" in words else 1,
            }
            for name, _, version, port, password, words in DATABASES
        ]

    def start_engine(self, name, folder, port, password, frequencies):
        data = self.root / f"direct-{name}"
        data.mkdir()
        program = next(folder.glob("bin/*-server"))
        words = [program, "--port", str(port), "--bind", f"{self.network}.9", "--save", "", "--dir", data]
        words += ["--loglevel", "warning"]
        if password:
            words += ["--requirepass", password]
        if frequencies:
            words += ["--maxmemory-policy", LFU]
        environment = {**os.environ, "LD_LIBRARY_PATH": str(folder / "lib")}
        with open(data / "log", "w") as log:
            self.engines.append(
                subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            )

    def run(self, words, **options):
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(map(str, words))}:\n{done.stdout}")

    def down(self):
        for engine in self.engines:
            engine.kill()
            engine.wait()
        subprocess.run([self.test_cluster, "down", "--root", self.root / "c"], stdout=subprocess.DEVNULL)
        shutil.rmtree(self.root, ignore_errors=True)


def run_program(name, stand, targets, scenarios):
    """Runs a program; returns (passed, failed, what to print)."""
    targets = [target for target in targets if target["name"] in ONLY_ON.get(name, {target["name"]})]
    given = stand.root / f"{name}.in.json"
    results = stand.root / f"{name}.out.json"
    given.write_text(
        json.dumps(
            {"program": name, "targets": targets, "scenarios": scenarios, "times": bool(os.environ.get("TIMES"))}
        )
    )
    environment = {**os.environ, "MODULES": str(CACHE / "node"), "ENGINES": str(ENGINES)}
    log = stand.root / f"{name}.log"
    with open(log, "w") as out:
        child = subprocess.Popen(
            [*PROGRAMS[name], given, results],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = child.wait(PROGRAM_MAX)
            ending = "" if code in (0, 1) else f"{name} ended with {code}\n"
        except subprocess.TimeoutExpired:
            ending = f"{name} was still running after {PROGRAM_MAX} s\n"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    text = log.read_text()
    try:
        found = json.loads(results.read_text())
    except (OSError, ValueError):
        return 0, 1, f"{text}{ending}{name} left no result\n"
    return found["passed"], found["failed"] + bool(ending), text + ending


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", action="append", choices=PROGRAMS, metavar="PROGRAM", help=", ".join(PROGRAMS))
    parser.add_argument("--target", action="append", choices=[d[0] for d in DATABASES])
    parser.add_argument("--scenario", action="append", help="only scenarios of this name")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    stand = Stand()
    passed = failed = 0
    try:
        targets = stand.up()
        targets = [t for t in targets if not options.target or t["name"] in options.target]
        print(f"three nodes and {len(targets)} databases are up: {time.monotonic() - began:.1f} s", flush=True)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            runs = [
                pool.submit(run_program, name, stand, targets, options.scenario)
                for name in options.only or PROGRAMS
            ]
            for run in runs:
                good, bad, text = run.result()
                passed, failed = passed + good, failed + bad
                print(text, end="", flush=True)
    finally:
        if options.keep:
            print(f"left running: {stand.test_cluster} down --root {stand.root}/c; engines: " + ", ".join(
                str(engine.pid) for engine in stand.engines))
        else:
            stand.down()
    print(f"client programs: {time.monotonic() - began:.0f} s")
    print(f"{passed} passed, {failed} failed")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
