"""A program: one library, one protocol version. Runs every scenario on each target, directly first.

usage: program.py {redis|valkey} {2|3} GIVEN RESULTS
"""

import json
import os
import secrets
import sys
import threading
import time
import traceback

import asynchronous
import blocking
import connections
import data_types
import large
import messages
import scripts
import streams
import transactions
from side import Side, short

MODULES = [data_types, streams, transactions, blocking, messages, scripts, connections, large, asynchronous]


def scenarios():
    for module in MODULES:
        for scenario in module.SCENARIOS:
            yield scenario


def run_side(scenario, side):
    side.scenario = scenario.__name__
    side.seen.clear()
    try:
        scenario(side)
        return list(side.seen)
    finally:
        side.close()


def told(error):
    """What went wrong and where in these programs; a library's own lines tell nobody anything."""
    here = os.path.dirname(os.path.abspath(__file__))
    frames = [f for f in traceback.extract_tb(error.__traceback__) if os.path.dirname(f.filename) == here]
    places = [f"{os.path.basename(f.filename)}:{f.lineno}" for f in frames[2:]]
    return f"{type(error).__name__}: {error}\n    at {' < '.join(reversed(places))}"


def difference(direct, proxied):
    for wanted, got in zip(direct, proxied):
        if wanted != got:
            return f"{wanted[0]}\n    engine:   {short(wanted[1])}\n    endpoint: {short(got[1])}" + (
                "" if wanted[0] == got[0] else f" (of {got[0]})"
            )
    if len(direct) != len(proxied):
        return f"{len(direct)} answers directly, {len(proxied)} through the endpoint"
    return None


def run_both(scenario, direct, proxied):
    """None, or why it failed."""
    only_endpoint = getattr(scenario, "only_endpoint", False)
    wanted = None
    if not only_endpoint:
        try:
            wanted = run_side(scenario, direct)
        except Exception as error:
            return "directly on the engine: " + told(error)
    try:
        got = run_side(scenario, proxied)
    except Exception as error:
        return told(error)
    return None if only_endpoint else difference(wanted, got)


def main():
    library, protocol, given, results = sys.argv[1:]
    with open(given) as file:
        given = json.load(file)
    program, run = given["program"], secrets.token_hex(2)
    # A thread that still waits must not keep the program from ending.
    threading.excepthook = lambda args: print(f"{program}: in a thread: {args.exc_value!r}")
    counts = {"passed": 0, "failed": 0}
    for target in given["targets"]:
        began = time.monotonic()
        sides = [Side(library, int(protocol), program, run, target, proxied) for proxied in (False, True)]
        passed = failed = 0
        for scenario in scenarios():
            needs = getattr(scenario, "needs", lambda side: True)
            wanted = not given["scenarios"] or scenario.__name__ in given["scenarios"]
            if not wanted or not needs(sides[1]):
                continue
            start = time.monotonic()
            why = run_both(scenario, *sides)
            if why is None:
                passed += 1
            else:
                failed += 1
                print(f"FAIL {program} {target['name']} {scenario.__name__}: {why.rstrip()}")
            if given.get("times"):
                print(f"    {scenario.__name__:<24} {time.monotonic() - start:.2f} s")
        counts["passed"] += passed
        counts["failed"] += failed
        print(
            f"{program:<18} {target['name']:<11} {passed:>3} passed {failed:>3} failed"
            f" {sides[1].checks:>6} checks {time.monotonic() - began:6.1f} s",
            flush=True,
        )
    with open(results, "w") as file:
        json.dump(counts, file)
    sys.exit(1 if counts["failed"] else 0)


if __name__ == "__main__":
    main()
