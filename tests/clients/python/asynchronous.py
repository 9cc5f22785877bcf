"""The asyncio client: many at once, and calls that are given up half-way."""

import asyncio
import random


def gathered(s):
    async def work():
        k = s.key
        r = s.AsyncClient(**s.options(max_connections=20))
        async with r:

            async def one(n):
                await r.set(k(f"{n}"), n)
                async with r.pipeline(transaction=n % 2 == 0) as p:
                    p.incr(k(f"{n}"))
                    p.get(k(f"{n}"))
                    return await p.execute()

            answers = []
            for part in range(0, 200, 20):
                answers += await asyncio.gather(*(one(n) for n in range(part, part + 20)))
            s.equal(answers, [[n + 1, str(n + 1).encode()] for n in range(200)])
            sub = r.pubsub(ignore_subscribe_messages=True)
            await sub.subscribe(k("c"))
            async with asyncio.timeout(20):
                while await r.publish(k("c"), "hello") == 0:
                    await asyncio.sleep(0.01)
                while True:
                    message = await sub.get_message(timeout=0.1)
                    if message:
                        break
            s.equal(message["data"], b"hello")
            await sub.aclose()

    asyncio.run(work())


def cancelled(s):
    """What a cancelled call leaves behind never answers another one."""

    async def work():
        k = s.key
        r = s.AsyncClient(**s.options(max_connections=200))
        async with r:
            await r.mset({k(f"{n}"): f"value {n}" for n in range(50)})
            chance = random.Random(7)
            for _ in range(10):
                tasks = [asyncio.create_task(r.get(k(f"{n}"))) for n in range(50)]
                for task in tasks:
                    if chance.random() < 0.5:
                        asyncio.get_running_loop().call_later(chance.random() / 200, task.cancel)
                answers = await asyncio.gather(*tasks, return_exceptions=True)
                for n, answer in enumerate(answers):
                    if not isinstance(answer, asyncio.CancelledError):
                        s.equal(answer, f"value {n}".encode())
            # A wait that is given up takes nothing from the list afterwards.
            waiter = s.AsyncClient(**s.options(host=s.hosts[0], client_name=k("waiter")))
            one_node = s.AsyncClient(**s.options(host=s.hosts[0]))
            waits = asyncio.create_task(waiter.blpop([k("q")], timeout=0))
            async with asyncio.timeout(20):
                while not any(c["name"] == k("waiter") and "b" in c["flags"] for c in await one_node.client_list()):
                    await asyncio.sleep(0.01)
                waits.cancel()
                await asyncio.gather(waits, return_exceptions=True)
                # Only this client has this name: when it is not listed any more, its wait is over.
                while any(c["name"] == k("waiter") for c in await one_node.client_list()):
                    await asyncio.sleep(0.01)
            # The endpoint's own connection to the engine ends a moment later than the client's,
            # and may take one element meanwhile: docs/clients.md.
            for _ in range(2 if s.proxied else 1):
                await one_node.rpush(k("q"), "kept")
            s.equal(await one_node.lpop(k("q")), b"kept")
            await waiter.aclose()
            await one_node.aclose()
            s.equal(await r.mget([k(f"{n}") for n in range(50)]), [f"value {n}".encode() for n in range(50)])

    asyncio.run(work())


SCENARIOS = [gathered, cancelled]
