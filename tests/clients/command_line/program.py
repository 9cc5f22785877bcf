"""The command-line tools of the engines, and bare sockets, against each endpoint.

usage: program.py GIVEN RESULTS
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
from pathlib import Path

PATIENCE = 30
# What is known to differ from the engine and is not repaired yet: told, but no failure.
KNOWN_DEFECTS = set()


class Endpoint:
    def __init__(self, target, tool, run, scenario):
        self.target, self.tool, self.prefix = target, tool, f"cli:{run}:{scenario}:"
        self.password = target["password"]

    def words(self, node=0):
        folder = Path(os.environ["ENGINES"]) / self.tool[0]
        words = [folder / "bin" / self.tool[1], "-h", self.target["endpoint"][node], "-p", str(self.target["port"])]
        return words + (["-a", self.password, "--no-auth-warning"] if self.password else [])

    def cli(self, *words, given=None, node=0, code=0):
        """Runs the tool; returns what it printed."""
        folder = Path(os.environ["ENGINES"]) / self.tool[0]
        done = subprocess.run(
            [*self.words(node), *words],
            input=given if given is not None else b"",
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
            env={**os.environ, "LD_LIBRARY_PATH": str(folder / "lib")},
        )
        text = done.stdout.decode(errors="replace")
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


def single_commands(e):
    k = e.prefix
    equal(e.cli("SET", k + "a", "hello world"), "OK", "SET")
    equal(e.cli("GET", k + "a", node=1), "hello world", "GET through another node")
    equal(e.cli("-x", "SET", k + "b", given=b"from\0stdin"), "OK", "SET from standard input")
    equal(e.cli("STRLEN", k + "b"), "10", "STRLEN")
    equal(e.cli("-r", "5", "INCR", k + "n").split(), list("12345"), "repeated")
    equal(e.cli("--csv", "MGET", k + "a", k + "none", k + "n"), '"hello world",NULL,"5"', "CSV")
    equal(e.cli("-3", "HGETALL", k + "none"), "", "version 3 of the protocol")
    equal(e.cli("--no-raw", "INCR", k + "n"), "(integer) 6", "typed output")
    if e.target["shards"] == 1:
        equal(e.cli("-n", "2", "SET", k + "two", "x"), "OK", "another database")
        equal([e.cli("EXISTS", k + "two"), e.cli("-n", "2", "EXISTS", k + "two")], ["0", "1"], "databases are apart")
    true("WRONGTYPE" in e.cli("LPUSH", k + "a", "x"), "an error is printed")
    equal(e.cli("-e", "LPUSH", k + "a", "x", code=1)[:9], "WRONGTYPE", "an error is an exit code")
    true("not available" in e.cli("SHUTDOWN"), "SHUTDOWN is refused with words")


def batches(e):
    k = e.prefix
    lines = "".join(f"SET {k}{i} '{i} x'\n" for i in range(500)) + "MULTI\nINCR %sn\nGET %s7\nEXEC\n" % (k, k)
    got = e.cli(given=lines.encode()).split("\n")
    equal(got[:500], ["OK"] * 500, "commands from standard input")
    equal(got[500:], ["OK", "QUEUED", "QUEUED", "1", "7 x"], "a transaction from standard input")
    script = Path("/tmp") / f"{k.replace(':', '-')}.lua"
    script.write_text("return {KEYS[1], ARGV[1], redis.call('get', KEYS[1])}")
    try:
        got = e.cli("--eval", str(script), k + "7", ",", "argument")
    finally:
        script.unlink()
    equal(got.split("\n"), [k + "7", "argument", "7 x"], "a script from a file")


def mass_insertion(e):
    k = e.prefix
    count = 50_000
    given = b"".join(command("SET", f"{k}{i:05}", i) for i in range(count))
    true(f"errors: 0, replies: {count}" in e.cli("--pipe", given=given), "every command is answered")
    equal(e.cli("GET", f"{k}{count - 1:05}"), str(count - 1), "the last one")
    quick = ["--count", "2000"] if e.tool[1] == "valkey-cli" else []
    found = e.cli("--scan", "--pattern", f"{k}*", *quick).split("\n")
    equal(len(set(found)), count, "--scan finds all of them")
    true("Biggest string" in e.cli("--bigkeys"), "--bigkeys ends")
    if e.target["shards"] > 1:
        given = b"".join(command("UNLINK", *(f"{k}{i:05}" for i in range(at, at + 100))) for at in range(0, count, 100))
        true(f"errors: 0, replies: {count // 100}" in e.cli("--pipe", given=given), "deleted over the shards")
        equal(e.cli("--scan", "--pattern", f"{k}*", *quick), "", "nothing is left")
        return
    deleted = e.cli("EVAL", "local n = 0 for i = 0, 49999 do n = n + redis.call('unlink', KEYS[1] .. string.format('%05d', i)) end return n", "1", k)
    equal(deleted, str(count), "deleted by a script")


def streams_of_output(e):
    """MONITOR and SUBSCRIBE print what others do."""
    k = e.prefix
    folder = Path(os.environ["ENGINES"]) / e.tool[0]
    for words, act in [
        (["MONITOR"], lambda: e.cli("SET", k + "seen", "x", node=2)),
        (["SUBSCRIBE", k + "c"], lambda: e.cli("PUBLISH", k + "c", "seen", node=2)),
    ]:
        child = subprocess.Popen(
            [*e.words(1), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env={**os.environ, "LD_LIBRARY_PATH": str(folder / "lib")},
        )
        try:
            child.stdout.readline()
            if words[0] == "SUBSCRIBE":
                child.stdout.readline(), child.stdout.readline()
            act()
            true(any("seen" in child.stdout.readline().decode() for _ in range(50)), f"{words[0]} shows it")
        finally:
            child.kill()
            child.wait()


def benchmark(e):
    """The engine's own load generator, with and without pipelining."""
    folder = Path(os.environ["ENGINES"]) / ("redis-7.0.15" if e.tool[0].startswith("redis") else e.tool[0])
    program = folder / "bin" / e.tool[1].replace("-cli", "-benchmark")
    for more in (["-P", "16", "-n", "20000"], ["-n", "2000"]):
        words = [program, *e.words()[1:5], "-q", "-c", "50", "-t", "set,get,lpush,lpop,mset", *more]
        words += ["-a", e.password] if e.password else []
        done = subprocess.run(
            words,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env={**os.environ, "LD_LIBRARY_PATH": str(folder / "lib")},
        )
        true(done.returncode == 0 and "rror" not in done.stdout, f"{done.stdout[-300:]}{done.stderr[-300:]}")
        equal(done.stdout.count("requests per second"), 5, "tests that ended")


def inline(e):
    """Commands as a person types them; the same bytes as from the engine."""
    k = e.prefix.encode()
    said = [
        b"PING\r\n",
        b"SET " + k + b"a 1\r\n",
        b"get " + k + b"a\n",
        b"\r\n",
        b'SET ' + k + b'b "two words \\x41\\n"\r\n',
        b"GET " + k + b"b\r\n",
        b"SET " + k + b"c 'single \\' quote'\r\n",
        b"GET " + k + b"c\r\n",
        b"  ECHO   spaces   \r\n",
        b"NOSUCH a\r\n",
        b"GET\r\n",
        command("GET", k + b"a"),
        b"*0\r\n",
        b"PING last\r\n",
    ]
    end = b"$4\r\nlast\r\n"
    answers = []
    for direct in (True, False):
        with e.socket(direct) as connection:
            connection.sendall(b"".join(said))
            whole = read(connection, end)
        with e.socket(direct) as connection:
            for byte in b"".join(said):
                connection.send(bytes([byte]))
            equal(read(connection, end), whole, "byte by byte")
        answers.append(whole)
    equal(answers[1], answers[0], "what was answered")


def bad_protocol(e):
    """What is no command: the same answer as from the engine, and the connection ends."""
    for said in (
        b"*-1x\r\n",
        b"*1\r\n+PING\r\n",
        b"*2\r\n$3\r\nGET\r\n$-5\r\n",
        b"*1\r\n$x\r\n",
        b"*99999999999\r\n",
        b'SET a "unbalanced\r\n',
        b"x" * 70_000,
    ):
        answers = []
        for direct in (True, False):
            with e.socket(direct) as connection:
                connection.sendall(said)
                try:
                    answers.append(read(connection, b"<never>"))
                except ConnectionResetError:
                    answers.append(b"<reset>")
        if b"<reset>" not in answers:
            equal(answers[1], answers[0], f"to {said[:40]}")


def order_after_client_list(e):
    """Answers come in the order of the commands, the ones about connections too."""
    for words in (["CLIENT", "LIST"], ["CLIENT", "KILL", "ID", "999999999"]):
        with e.socket() as connection:
            connection.settimeout(1)
            connection.sendall(command(*words) + command("ECHO", "end of it"))
            try:
                got = read(connection, b"$9\r\nend of it\r\n")
            except TimeoutError as error:
                raise AssertionError(f"{words}: the next command was answered first") from error
            true(not got.startswith(b"$9\r\nend"), f"{words} is answered first")


def foreign_protocol(e):
    """A browser that was sent here: its connection ends, and nobody else notices."""
    with e.socket() as other, e.socket() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.settimeout(1)
        try:
            got = read(connection, b"<never>")
        except TimeoutError as error:
            raise AssertionError("the connection stays open") from error
        equal(got, b"<closed>", "the answer")
        other.sendall(command("PING"))
        equal(read(other, b"\r\n"), b"+PONG\r\n", "somebody else's command")


SCENARIOS = [
    single_commands,
    batches,
    mass_insertion,
    streams_of_output,
    benchmark,
    inline,
    bad_protocol,
    order_after_client_list,
    foreign_protocol,
]


def main():
    given, results = sys.argv[1:]
    with open(given) as file:
        given = json.load(file)
    run = secrets.token_hex(2)
    counts = {"passed": 0, "failed": 0}
    for number, target in enumerate(given["targets"]):
        tool = [("redis-7.0.15", "redis-cli"), ("valkey-8.0.1", "valkey-cli")][target["name"].startswith("valkey")]
        began = time.monotonic()
        passed = failed = 0
        for scenario in SCENARIOS:
            name = scenario.__name__
            if given["scenarios"] and name not in given["scenarios"]:
                continue
            start = time.monotonic()
            try:
                scenario(Endpoint(target, tool, run, name))
                passed += 1
            except Exception as error:
                known = name in KNOWN_DEFECTS
                failed += not known
                told = "known defect" if known else "FAIL"
                print(f"{told} {given['program']} {target['name']} {name}: {type(error).__name__}: {error}")
            if given.get("times"):
                print(f"    {name:<24} {time.monotonic() - start:.2f} s")
        counts["passed"] += passed
        counts["failed"] += failed
        print(
            f"{given['program']:<18} {target['name']:<11} {passed:>3} passed {failed:>3} failed"
            f" {time.monotonic() - began:6.1f} s",
            flush=True,
        )
    with open(results, "w") as file:
        json.dump(counts, file)
    sys.exit(1 if counts["failed"] else 0)


if __name__ == "__main__":
    main()
