"""Clients that know the database's name alone: redis-py's Sentinel, sync and async.

usage: finding.py GIVEN RESULTS
"""

import asyncio
import json
import secrets
import sys
import traceback

import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from redis.backoff import NoBackoff
from redis.retry import Retry

PORT = 8001


def found_sync(target, hosts, protocol, key):
    # One that is not there is not waited for.
    asked = {"socket_timeout": 5, "protocol": protocol, "retry": Retry(NoBackoff(), 0)}
    hosts = [(host, PORT) for host in hosts]
    sentinel = redis.sentinel.Sentinel(hosts, sentinel_kwargs=asked, protocol=protocol)
    address = sentinel.discover_master(target["name"])
    assert address[1] == target["port"] and address[0] in target["endpoint"], address
    assert sentinel.discover_slaves(target["name"]) == []
    client = sentinel.master_for(target["name"], password=target["password"], socket_timeout=5)
    client.set(key, "found")
    assert client.get(key) in (b"found", "found")
    # A new connection looks the name up again.
    client.connection_pool.disconnect()
    assert client.get(key) in (b"found", "found")
    client.close()
    try:
        sentinel.discover_master("there-is-none")
    except redis.sentinel.MasterNotFoundError:
        return
    raise AssertionError("a name that does not exist was found")


def sync_by_name(target, key):
    found_sync(target, target["endpoint"], 2, key)


def sync_by_name_resp3(target, key):
    found_sync(target, target["endpoint"], 3, key)


def past_a_dead_sentinel(target, key):
    # Nobody listens at the first one.
    found_sync(target, ["127.0.0.77", *target["endpoint"]], 2, key)


def internal_name(target, key):
    found_sync({**target, "name": target["name"] + "@internal"}, target["endpoint"], 2, key)


def async_by_name(target, key):
    async def work():
        hosts = [(host, PORT) for host in target["endpoint"]]
        sentinel = redis.asyncio.sentinel.Sentinel(hosts, socket_timeout=5)
        client = sentinel.master_for(target["name"], password=target["password"], socket_timeout=5)
        await client.set(key, "found")
        assert await client.get(key) in (b"found", "found")
        await asyncio.gather(*(client.set(f"{key}:{n}", n) for n in range(20)))
        await client.aclose()
        for one in sentinel.sentinels:
            await one.aclose()

    asyncio.run(work())


def subscribed(target, key):
    client = redis.Redis(target["endpoint"][0], PORT, socket_timeout=5)
    listening = client.pubsub()
    listening.psubscribe("*")
    listening.subscribe("+switch-master", "+sdown", "-sdown", "+odown", "+reset-master")
    seen = [listening.get_message(timeout=5) for _ in range(6)]
    assert all(message and message["type"].endswith("subscribe") for message in seen), seen
    listening.close()
    assert client.execute_command("SENTINEL", "CKQUORUM", target["name"]).startswith(b"OK ")
    assert len(client.sentinel_sentinels(target["name"])) == len(target["endpoint"]) - 1
    client.close()


SCENARIOS = [sync_by_name, sync_by_name_resp3, past_a_dead_sentinel, internal_name, async_by_name, subscribed]


def main():
    given, results = sys.argv[1:]
    with open(given) as file:
        given = json.load(file)
    program, run = given["program"], secrets.token_hex(2)
    counts = {"passed": 0, "failed": 0}
    for target in given["targets"]:
        passed = failed = 0
        for scenario in SCENARIOS:
            if given["scenarios"] and scenario.__name__ not in given["scenarios"]:
                continue
            try:
                scenario(target, f"{program}:{run}:{scenario.__name__}")
                passed += 1
            except Exception:
                failed += 1
                print(f"FAIL {program} {target['name']} {scenario.__name__}: {traceback.format_exc().rstrip()}")
        counts["passed"] += passed
        counts["failed"] += failed
        print(f"{program:<18} {target['name']:<11} {passed:>3} passed {failed:>3} failed", flush=True)
    with open(results, "w") as file:
        json.dump(counts, file)
    sys.exit(1 if counts["failed"] else 0)


if __name__ == "__main__":
    main()
