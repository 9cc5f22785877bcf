"""Commands that wait, across threads and nodes."""

import threading
from concurrent.futures import ThreadPoolExecutor


def blocking(s):
    r, k = s.client(), s.key
    s.equal(r.blpop([k("none")], timeout=0.05), None)
    if s.engine >= (7, 0):
        s.see("BLMPOP of nothing", r.blmpop(0.05, 1, k("none"), direction="LEFT"))
    s.see("BZPOPMIN of nothing", r.bzpopmin([k("none")], timeout=0.05))
    s.fails(r.execute_command, "BLPOP", k("none"), "-1")
    # CLIENT LIST tells of the connections of one node.
    watcher = s.client(host=s.hosts[0])
    with ThreadPoolExecutor(1) as pool:

        def waits(call, *args, **more):
            """Starts a call that blocks, and returns when it does."""
            name = k(call)
            waiter = s.client(host=s.hosts[0], client_name=name)
            answer = pool.submit(getattr(waiter, call), *args, **more)
            s.until(f"{call} blocks", lambda: blocks(watcher, name))
            return answer

        answer = waits("blpop", [k("a"), k("b")], timeout=0)
        r.rpush(k("b"), "x", "y")
        s.equal(tuple(answer.result(20)), (k("b").encode(), b"x"))
        answer = waits("blmove", k("from"), k("to"), 0, "LEFT", "RIGHT")
        r.rpush(k("from"), "moved")
        s.equal([answer.result(20), r.lrange(k("to"), 0, -1)], [b"moved", [b"moved"]])
        answer = waits("brpoplpush", k("from"), k("to"), 0)
        r.rpush(k("from"), "again")
        s.equal(answer.result(20), b"again")
        answer = waits("bzpopmax", [k("z")], timeout=0)
        r.zadd(k("z"), {"a": 1, "b": 2})
        s.see("BZPOPMAX", answer.result(20))
        answer = waits("xread", {k("x"): "$"}, block=0)
        r.xadd(k("x"), {"f": "v"}, id="1-1")
        s.see("XREAD BLOCK", answer.result(20))
        answer = waits("blpop", [k("many")], timeout=0)
        with r.pipeline() as p:
            p.rpush(k("many"), "in a transaction")
            p.rpush(k("many"), "second")
            p.execute()
        s.equal(answer.result(20)[1], b"in a transaction")
        # A key of another type in between does not end the wait.
        answer = waits("blpop", [k("typed")], timeout=0)
        with r.pipeline() as p:
            p.set(k("typed"), "text").delete(k("typed")).rpush(k("typed"), "list")
            p.execute()
        s.equal(answer.result(20)[1], b"list")


def blocks(watcher, name):
    return any(c["name"] == name and "b" in c["flags"] for c in watcher.client_list())


def queue(s):
    """Three producers and four consumers over different nodes: every job exactly once."""
    k = s.key
    got, lock, failures = [], threading.Lock(), []

    def consume():
        try:
            r = s.client()
            while True:
                _, job = r.blpop([k("urgent"), k("jobs")], timeout=0)
                if job == b"end":
                    return
                with lock:
                    got.append(job)
        except Exception as error:
            failures.append(error)

    def produce(name):
        try:
            r = s.client()
            for i in range(100):
                r.rpush(k("urgent" if i % 10 == 0 else "jobs"), f"{name}-{i}")
        except Exception as error:
            failures.append(error)

    consumers = [threading.Thread(target=consume, daemon=True) for _ in range(4)]
    producers = [threading.Thread(target=produce, args=(n,), daemon=True) for n in range(3)]
    for thread in consumers + producers:
        thread.start()
    for thread in producers:
        thread.join(30)
    s.client().rpush(k("jobs"), *["end"] * 4)
    for thread in consumers:
        thread.join(30)
        s.true(failures or not thread.is_alive(), "a consumer does not end")
    if failures:
        raise failures[0]
    s.equal(sorted(got), sorted(f"{n}-{i}".encode() for n in range(3) for i in range(100)))


SCENARIOS = [blocking, queue]
