"""A program with a task queue: the libraries' own workers, brokers and result stores, through the endpoint.

usage: queues.py {celery|rq} GIVEN RESULTS
"""

import importlib
import itertools
import json
import secrets
import sys
import time
import traceback
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

# A scenario waits at most so long for what must come, seconds.
PATIENCE = 20


class Place:
    """An endpoint, and names of this run alone."""

    def __init__(self, target, run):
        self.shards = target["shards"]
        self.password = target["password"]
        self.port = target["port"]
        self.run = run
        self._hosts = itertools.cycle(target["endpoint"])

    def address(self):
        """Where the next client connects to."""
        return {"host": next(self._hosts), "port": self.port, "password": self.password}


def until(what, condition):
    """Waits for a condition; returns what it returned."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.01)
    raise AssertionError(f"{what}: not within {PATIENCE} s")


def equal(got, wanted):
    if got != wanted:
        raise AssertionError(f"got {str(got)[:300]!r}, expected {str(wanted)[:300]!r}")


def run(library, given, target):
    """Runs all scenarios on a target; returns how many passed and failed."""
    program = given["program"]
    scenarios = importlib.import_module(f"{library}_tasks")
    began = time.monotonic()
    passed = failed = 0
    with scenarios.opened(Place(target, secrets.token_hex(2))) as queue:
        for scenario in scenarios.SCENARIOS:
            if given["scenarios"] and scenario.__name__ not in given["scenarios"]:
                continue
            start = time.monotonic()
            try:
                scenario(queue)
                passed += 1
            except Exception as error:
                failed += 1
                print(f"FAIL {program} {target['name']} {scenario.__name__}: {type(error).__name__}: {error}")
                traceback.print_exc(limit=-4)
            if given.get("times"):
                print(f"    {scenario.__name__:<24} {time.monotonic() - start:.2f} s")
    print(
        f"{program:<18} {target['name']:<11} {passed:>3} passed {failed:>3} failed {time.monotonic() - began:6.1f} s",
        flush=True,
    )
    return passed, failed


def main():
    library, given, results = sys.argv[1:]
    with open(given) as file:
        given = json.load(file)
    counts = {"passed": 0, "failed": 0}
    # The libraries keep much for the whole process: each target has one of its own.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for target in given["targets"]:
            passed, failed = pool.submit(run, library, given, target).result()
            counts["passed"] += passed
            counts["failed"] += failed
    with open(results, "w") as file:
        json.dump(counts, file)
    sys.exit(1 if counts["failed"] else 0)


if __name__ == "__main__":
    main()
