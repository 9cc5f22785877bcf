"""The engines' own load generators, redis-benchmark and valkey-benchmark."""

import subprocess

from endpoint import PATIENCE, equal, true


def run(e, *words, code=0):
    """Runs the generator; returns what it printed."""
    # Redis 6.2 comes without one.
    folder = e.folder.parent / ("redis-7.0.15" if e.tool[0].startswith("redis") else e.tool[0])
    program = folder / "bin" / e.tool[1].replace("-cli", "-benchmark")
    done = subprocess.run(
        [program, *e.words()[1:5], *(["-a", e.password] if e.password else []), *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env={**e.environment, "LD_LIBRARY_PATH": str(folder / "lib")},
    )
    text = done.stdout + done.stderr
    equal(done.returncode, code, f"{words} printed {text[-300:]}; its exit code")
    if code == 0:
        true("rror" not in text, f"{words}: {text[-300:]}")
    return text


def ended(text):
    """The tests that ended; what is printed while they run ends with CR."""
    lines = [line for part in text.splitlines() for line in part.split("\r")]
    return [line.split(":")[0] for line in lines if "requests per second" in line]


def benchmark(e):
    """With and without pipelining."""
    for more in (["-P", "16", "-n", "20000"], ["-n", "2000"]):
        equal(len(ended(run(e, "-q", "-c", "50", "-t", "set,get,lpush,lpop,mset", *more))), 5, "tests that ended")


def benchmark_of_everything(e):
    """All its tests, over keys by chance and in version 3 of the protocol."""
    names = ended(run(e, "-q", "-c", "20", "-n", "1000", "-P", "16", "-r", "1000"))
    true(len(names) >= 20 and any(name.startswith("LRANGE_600") for name in names), f"tests that ended: {names}")
    version3 = ended(run(e, "-q", "-3", "-n", "400", "-P", "4", "-t", "ping,get,hset,zadd,zpopmin,spop,mset,xadd"))
    true(len(version3) >= 7, f"tests that ended: {version3}")


def benchmark_in_other_ways(e):
    """Threads, a new connection for each command, caching, commands of one's own, CSV."""
    equal(len(ended(run(e, "-q", "-n", "2000", "--threads", "2", "-t", "set,get,mset"))), 3, "with threads")
    equal(len(ended(run(e, "-q", "-n", "200", "-c", "10", "-k", "0", "-t", "set,get"))), 2, "without keeping alive")
    equal(len(ended(run(e, "-q", "-n", "1000", "-r", "50", "--enable-tracking", "-t", "set,get"))), 2, "with caching")
    equal(len(ended(run(e, "-q", "-n", "300", "-r", "9", "SET", e.prefix + "__rand_int__", "x"))), 1, "a command")
    script = "return redis.call('INCR', KEYS[1])"
    equal(len(ended(run(e, "-q", "-n", "300", "EVAL", script, "1", e.prefix + "n"))), 1, "a script")
    equal(e.cli("GET", e.prefix + "n"), "300", "the script ran so often")
    true(run(e, "--csv", "-n", "300", "-t", "set").count('"SET"') == 1, "CSV")
    if e.target["shards"] == 1:
        equal(len(ended(run(e, "-q", "-n", "300", "--dbnum", "3", "-t", "set"))), 1, "another database")
    else:
        true("DB index is out of range" in run(e, "-n", "300", "--dbnum", "3", "-t", "set", code=1), "one database")


def benchmark_of_a_cluster(e):
    """An endpoint is no cluster: it says so."""
    true("CLUSTER is not available" in run(e, "--cluster", "-n", "10", "-t", "set", code=1), "the reason")


SCENARIOS = [benchmark, benchmark_of_everything, benchmark_in_other_ways, benchmark_of_a_cluster]
