"""What redis-cli and valkey-cli do without a terminal."""

import subprocess
import tempfile
import threading
from pathlib import Path

from endpoint import command, equal, true


def old(e):
    """The tool of Redis 6.2 lacks some modes."""
    return e.tool[0] == "redis-6.2.14"


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
    if not old(e):
        equal(e.cli("-e", "LPUSH", k + "a", "x", code=1)[:9], "WRONGTYPE", "an error is an exit code")
    true("not available" in e.cli("SHUTDOWN"), "SHUTDOWN is refused with words")


def batches(e):
    k = e.prefix
    lines = "".join(f"SET {k}{i} '{i} x'\n" for i in range(500)) + "MULTI\nINCR %sn\nGET %s7\nEXEC\n" % (k, k)
    got = e.cli(given=lines.encode()).split("\n")
    equal(got[:500], ["OK"] * 500, "commands from standard input")
    equal(got[500:], ["OK", "QUEUED", "QUEUED", "1", "7 x"], "a transaction from standard input")
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write("return {KEYS[1], ARGV[1], redis.call('get', KEYS[1])}")
        script.flush()
        got = e.cli("--eval", script.name, k + "7", ",", "argument")
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
    for words, act in [
        (["MONITOR"], lambda: e.cli("SET", k + "seen", "x", node=2)),
        (["SUBSCRIBE", k + "c"], lambda: e.cli("PUBLISH", k + "c", "seen", node=2)),
    ]:
        child = subprocess.Popen(
            [*e.words(1), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            env=e.environment,
        )
        late = threading.Timer(30, child.kill)
        try:
            child.stdout.readline()
            if words[0] == "SUBSCRIBE":
                child.stdout.readline(), child.stdout.readline()
            act()
            # MONITOR shows what other programs do meanwhile, too: as many lines as come within the time.
            late.start()
            true(any(b"seen" in line for line in child.stdout), f"{words[0]} shows it")
        finally:
            late.cancel()
            child.kill()
            child.wait()


def forms_of_output(e):
    k = e.prefix
    e.cli("HSET", k + "h", "f", "v", "g", 'a "quote"')
    e.cli("RPUSH", k + "l", "a", "b", "c")
    e.cli("ZADD", k + "z", "1.5", "one")
    equal(e.cli("-d", ";", "LRANGE", k + "l", "0", "-1"), "a;b;c", "a delimiter")
    equal(e.cli("--csv", "LRANGE", k + "l", "0", "-1"), '"a","b","c"', "CSV")
    equal(e.cli("--no-raw", "LRANGE", k + "l", "0", "1"), '1) "a"\n2) "b"', "typed")
    equal(e.cli("--no-raw", "-3", "HGETALL", k + "h"), '1# "f" => "v"\n2# "g" => "a \\"quote\\""', "a map")
    equal(e.cli("--no-raw", "-3", "ZSCORE", k + "z", "one"), "(double) 1.5", "a double")
    equal(e.cli("-u", f"redis://{e.target['endpoint'][1]}:{e.target['port']}/0", "PING"), "PONG", "by an address")
    equal(e.cli("-r", "3", "-i", "0.01", "INCR", k + "n").split(), list("123"), "repeated with pauses")
    equal(e.cli("-c", "GET", k + "n"), "3", "asked to follow a cluster")
    if old(e):
        return
    equal(e.cli("--json", "HGETALL", k + "h"), '{"f":"v","g":"a \\"quote\\""}', "JSON of a map")
    equal(e.cli("-2", "--json", "LRANGE", k + "l", "0", "-1"), '["a","b","c"]', "JSON of an array")
    equal(e.cli("-X", "tag", "SET", k + "x", "tag", given=b"for a tag"), "OK", "one argument from standard input")
    equal(e.cli("--quoted-input", "GET", f'"{k}\\x78"'), "for a tag", "a quoted argument")


def without_the_right(e):
    """Signing in as nobody: said so, and not forgotten."""
    got = e.cli("--user", "nobody", "--pass", "wrong", "--no-auth-warning", "PING", code=None)
    true("WRONGPASS" in got, f"a wrong user: {got}")
    if e.password:
        true("NOAUTH" in plain(e, "GET", e.prefix + "a"), "no password")


def plain(e, *words):
    """Runs the tool without the password."""
    done = subprocess.run(
        [*e.words()[:5], *words], input=b"", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30, env=e.environment
    )
    return done.stdout.decode()


def scans(e):
    k = e.prefix
    lines = "".join(f"SET {k}{i:03} x\n" for i in range(300)) + f"SADD {k}set " + " ".join(map(str, range(200))) + "\n"
    e.cli(given=lines.encode())
    # A key may come twice: other programs write to the same database, and its table may be resized meanwhile.
    found = e.cli("--scan", "--pattern", k + "*").split("\n")
    equal(sorted(set(found)), sorted([f"{k}{i:03}" for i in range(300)] + [k + "set"]), "every key, and no other")
    biggest = e.cli("--bigkeys", "-i", "0.001")
    true("Biggest    set found" in biggest and "members" in biggest, f"--bigkeys: {biggest[-300:]}")
    memory = e.cli("--memkeys")
    true("bytes" in memory and "Sampled" in memory, f"--memkeys: {memory[-300:]}")
    if e.target["frequencies"]:
        e.cli("-r", "300", "GET", k + "007")
        hot = e.cli("--hotkeys")
        true("hot key found with counter" in hot and "Sampled" in hot, f"--hotkeys: {hot[-300:]}")
    else:
        true("LFU" in e.cli("--hotkeys", code=1), "--hotkeys says what it needs")


def latencies(e):
    """Without a terminal they measure for one interval and end."""
    least, most, mean, samples = e.cli("--latency", "--raw", "-i", "0.2").split()
    true(float(least) <= float(mean) <= float(most) and int(samples) > 0, "--latency --raw")
    equal(len(e.cli("--latency", "--csv", "-i", "0.2").split(",")), 4, "--latency --csv")


def copies_of_the_data(e):
    """What makes the tool a replica is refused, with the reason; so are the tool's ways to a cluster."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "dump.rdb"
        for words in (["--rdb", str(file)], ["--replica"], ["--functions-rdb", str(file)]):
            if words[0] == "--functions-rdb" and old(e):
                continue
            got = e.cli(*words, code=1)
            true("is not available: this database is managed by its cluster" in got, f"{words}: {got[-300:]}")
    at = f"{e.target['endpoint'][0]}:{e.target['port']}"
    true("not configured as a cluster" in e.cli("--cluster", "check", at, code=1), "--cluster check")
    equal(e.cli("PING"), "PONG", "afterwards")


def a_million_commands(e):
    k, count = e.prefix, 100_000
    # Ten rounds over the keys: each command is answered, and each key keeps what came last.
    first = b"".join(command("SET", f"{k}{i:05}", 0) for i in range(count))
    given = b"".join(first.replace(b"\r\n$1\r\n0\r\n", b"\r\n$1\r\n%d\r\n" % n) for n in range(10))
    true(f"errors: 0, replies: {10 * count}" in e.cli("--pipe", given=given, patience=120), "every command is answered")
    keys = [f"{k}{i:05}" for i in range(0, count, 1000)]
    equal(e.cli("MGET", *keys).split(), ["9"] * len(keys), "what came last")
    given = b"".join(command("UNLINK", *(f"{k}{i:05}" for i in range(at, at + 500))) for at in range(0, count, 500))
    true(f"errors: 0, replies: {count // 500}" in e.cli("--pipe", given=given), "deleted")
    equal(e.cli("EXISTS", *keys), "0", "nothing is left")


a_million_commands.on = lambda target: target["name"] in ("valkey-9.1", "four-shards")

SCENARIOS = [
    single_commands,
    forms_of_output,
    without_the_right,
    batches,
    mass_insertion,
    a_million_commands,
    scans,
    latencies,
    copies_of_the_data,
    streams_of_output,
]
