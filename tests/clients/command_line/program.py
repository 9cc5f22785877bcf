"""The command-line tools of the engines, and bare sockets, against each endpoint.

usage: program.py GIVEN RESULTS
"""

import json
import secrets
import sys
import time

import load
import modes
import terminal
import wire
from endpoint import Endpoint

# Which tool is used where; elsewhere the newest that there is.
TOOLS = {"redis-6.2": ("redis-6.2.14", "redis-cli"), "redis-7.0": ("redis-7.0.15", "redis-cli")}


def scenarios():
    for module in (modes, terminal, load, wire):
        yield from module.SCENARIOS


def main():
    given, results = sys.argv[1:]
    with open(given) as file:
        given = json.load(file)
    run = secrets.token_hex(2)
    counts = {"passed": 0, "failed": 0}
    for target in given["targets"]:
        tool = TOOLS.get(target["name"], ("valkey-8.0.1", "valkey-cli"))
        began = time.monotonic()
        passed = failed = 0
        for scenario in scenarios():
            name = scenario.__name__
            if not getattr(scenario, "on", lambda target: True)(target):
                continue
            if given["scenarios"] and name not in given["scenarios"]:
                continue
            start = time.monotonic()
            try:
                scenario(Endpoint(target, tool, run, name))
                passed += 1
            except Exception as error:
                failed += 1
                print(f"FAIL {given['program']} {target['name']} {name}: {type(error).__name__}: {error}")
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
