"""Traffic with redis-py while nodes are upgraded: load.py CONNECTIONS COMMANDS-A-SECOND ENDPOINT...

Says `connected` when all connections are open. Runs until its standard input ends, then checks what it wrote, and
prints one line of JSON.
"""

import asyncio
import json
import sys
import time

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as Lost
from redis.exceptions import RedisError, TimeoutError as Late

# Keys of a connection: each is overwritten in turn, so that memory has a bound.
KEYS = 200
# Of a connection's rounds, one in so many appends to its list, where nothing may be missing or twice.
APPENDS = 10
SUBSCRIBERS = 3
# Between two messages, seconds.
MESSAGE = 0.01
# How long all connections may take to open, seconds.
OPENED = 60


class Load:
    def __init__(self):
        self.end = False
        self.commands = self.errors = self.dropped = self.lost = self.doubled = 0
        self.messages = self.messages_lost = self.messages_doubled = 0
        self.first_error = None
        self.longest = 0.0

    def failed(self, error):
        if isinstance(error, (Lost, Late)):
            self.dropped += 1
        else:
            self.errors += 1
        self.first_error = self.first_error or f"{type(error).__name__}: {error}"

    async def ask(self, client, *words):
        began = time.monotonic()
        try:
            answer = await client.execute_command(*words)
        except RedisError as error:
            self.failed(error)
            return None
        self.commands += 1
        self.longest = max(self.longest, time.monotonic() - began)
        return answer


def client(endpoint):
    host, port = endpoint.split(":")
    # Nothing is tried again: what goes wrong is to be seen.
    return Redis(
        host=host,
        port=int(port),
        single_connection_client=True,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=10,
        decode_responses=True,
    )


async def writer(load, number, endpoint, pause, opened):
    own = client(endpoint)
    me = await load.ask(own, "CLIENT", "ID")
    opened.put_nowait(number)
    written, appended, turn = {}, 0, 0
    while not load.end:
        turn += 1
        key = f"py:{number}:{turn % KEYS}"
        if await load.ask(own, "SET", key, turn):
            written[key] = turn
        if turn % APPENDS == 0:
            appended += 1
            await load.ask(own, "RPUSH", f"py:list:{number}", appended)
        else:
            key = f"py:{number}:{(turn * 37) % KEYS}"
            check(load, written.get(key), await load.ask(own, "GET", key))
        await asyncio.sleep(pause)
    for key, value in written.items():
        check(load, value, await load.ask(own, "GET", key))
    values = await load.ask(own, "LRANGE", f"py:list:{number}", 0, -1) or []
    seen = [int(value) for value in values]
    load.lost += len(set(range(1, appended + 1)) - set(seen))
    load.doubled += len(seen) - len(set(seen))
    await load.ask(own, "DEL", f"py:list:{number}")
    # A connection keeps its id when its proxy is replaced.
    if await load.ask(own, "CLIENT", "ID") != me:
        load.dropped += 1
    await own.aclose()


def check(load, expected, found):
    if expected is not None and found is not None and int(found) != expected:
        load.lost += 1


async def publisher(load, endpoint, sent):
    own = client(endpoint)
    while not load.end:
        sent[0] += 1
        await load.ask(own, "PUBLISH", "py:messages", sent[0])
        await asyncio.sleep(MESSAGE)
    await own.aclose()


async def subscriber(load, endpoint, sent, over, opened):
    own = client(endpoint)
    listener = own.pubsub()
    await listener.subscribe("py:messages")
    # The answer: from now on messages come.
    while await listener.get_message(timeout=OPENED) is None:
        pass
    opened.put_nowait(endpoint)
    last = 0
    while not (over.is_set() and last >= sent[0]):
        try:
            message = await listener.get_message(ignore_subscribe_messages=True, timeout=2)
        except RedisError as error:
            load.failed(error)
            return
        if message is None:
            if over.is_set():
                break
            continue
        number = int(message["data"])
        load.messages += 1
        if last and number <= last:
            load.messages_doubled += 1
        elif last:
            load.messages_lost += number - last - 1
        last = max(last, number)
    load.messages_lost += max(sent[0] - last, 0)
    await listener.aclose()
    await own.aclose()


async def wait_for(opened, count):
    for _ in range(count):
        await asyncio.wait_for(opened.get(), OPENED)


async def main():
    connections, rate, endpoints = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    load, sent, over, opened = Load(), [0], asyncio.Event(), asyncio.Queue()
    subscribers = [
        asyncio.create_task(subscriber(load, endpoints[at % len(endpoints)], sent, over, opened))
        for at in range(SUBSCRIBERS)
    ]
    await wait_for(opened, SUBSCRIBERS)
    writers = [
        asyncio.create_task(writer(load, at, endpoints[at % len(endpoints)], 2 * connections / rate, opened))
        for at in range(connections)
    ]
    writers.append(asyncio.create_task(publisher(load, endpoints[-1], sent)))
    await wait_for(opened, connections)
    print("connected", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    load.end = True
    await asyncio.gather(*writers)
    over.set()
    await asyncio.gather(*subscribers)
    report = {name: value for name, value in vars(load).items() if name not in ("end", "longest")}
    print(json.dumps(report | {"longest_ms": round(load.longest * 1000, 1)}))


asyncio.run(main())
