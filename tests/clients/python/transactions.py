"""Pipelines, MULTI, WATCH."""

import threading


def pipelines(s):
    r, k = s.client(), s.key
    with r.pipeline(transaction=False) as p:
        for i in range(5000):
            p.set(k(f"{i}"), i)
            p.get(k(f"{i}"))
        answers = p.execute()
    s.equal(answers[0::2], [True] * 5000)
    s.equal(answers[1::2], [str(i).encode() for i in range(5000)])
    with r.pipeline(transaction=False) as p:
        p.set(k("a"), "x").incr(k("a")).lpush(k("l"), 1).get(k("l")).get(k("a"))
        answers = p.execute(raise_on_error=False)
    s.see("errors in a pipeline", [a if not isinstance(a, Exception) else str(a) for a in answers])
    # Commands that the endpoint sends on different ways, in one pipeline, answered in order.
    with r.pipeline(transaction=False) as p:
        for i in range(100):
            p.set(k("n"), i)
            p.echo(f"{i}")
            p.blpop([k("nothing-here"), k("l")], timeout=1) if i == 50 else p.get(k("n"))
            p.eval("return ARGV[1]", 0, i)
            p.client_id()
            p.execute_command("SELECT", 0)
            p.get(k("n"))
        answers = p.execute()
    for i in range(100):
        one = answers[7 * i : 7 * i + 7]
        s.equal([one[0], one[1], one[3], one[6]], [True] + [str(i).encode()] * 3)
    s.equal(tuple(answers[7 * 50 + 2]), (k("l").encode(), b"1"))
    s.equal(len({a for a in answers[4::7]}), 1)


def multi(s):
    r, k = s.client(), s.key
    with r.pipeline() as p:
        p.set(k("a"), 1).incr(k("a")).get(k("a")).hset(k("h"), "f", "v").hgetall(k("h"))
        s.equal(p.execute(), [True, 2, b"2", 1, {b"f": b"v"}])
    with r.pipeline() as p:
        for i in range(2000):
            p.incr(k("n"))
        s.equal(p.execute(), list(range(1, 2001)))
    with r.pipeline() as p:
        p.set(k("a"), "text").incr(k("a")).set(k("b"), "done")
        answers = p.execute(raise_on_error=False)
        s.see("an error inside", [a if not isinstance(a, Exception) else str(a) for a in answers])
    s.equal(r.get(k("b")), b"done")
    with r.pipeline() as p:
        p.set(k("c"), 1).execute_command("NOSUCH").set(k("c"), 2)
        s.fails(p.execute, kind=s.lib.ResponseError)
    s.equal(r.get(k("c")), None, "a refused transaction changes nothing")
    # By hand on one connection.
    one = s.client(single_connection_client=True)
    for words in [
        ["MULTI"],
        ["SET", k("m"), "1"],
        ["MULTI"],
        ["EVAL", "return redis.call('incr', KEYS[1])", 1, k("m")],
        ["SELECT", 0],
        ["PING"],
        ["EXEC"],
        ["MULTI"],
        ["SET", k("m"), "2"],
        ["DISCARD"],
        ["GET", k("m")],
        ["MULTI"],
        ["GET", k("m"), "many"],
        ["SET", k("m"), "3"],
        ["EXEC"],
        ["GET", k("m")],
        ["MULTI"],
        ["BLPOP", k("nothing-here"), 0],
        ["WATCH", k("m")],
        ["EXEC"],
        ["PING"],
    ]:
        s.call(one, *words)


def watch(s):
    a, b, k = s.client(), s.client(), s.key
    a.set(k("w"), 1)
    with a.pipeline() as p:
        p.watch(k("w"))
        s.equal(p.get(k("w")), b"1")
        b.set(k("w"), 2)
        p.multi()
        p.set(k("w"), 3)
        s.fails(p.execute, kind=s.lib.WatchError)
    s.equal(a.get(k("w")), b"2")
    with a.pipeline() as p:
        p.watch(k("w"))
        b.set(k("other"), 2)
        p.multi()
        p.set(k("w"), 3)
        s.equal(p.execute(), [True])
    with a.pipeline() as p:
        p.watch(k("w"))
        b.set(k("w"), 9)
        p.unwatch()
        p.multi()
        p.get(k("w"))
        s.equal(p.execute(), [b"9"])
    with a.pipeline() as p:
        p.watch(k("expires"), k("w"))
        b.delete(k("w"))
        p.multi()
        p.ping()
        s.fails(p.execute, kind=s.lib.WatchError)


def counter(s):
    """Eight threads with WATCH and MULTI: what they count is exact."""
    k = s.key
    failures, retries = [], []

    def count():
        try:
            r = s.client()
            for _ in range(20):
                with r.pipeline() as p:
                    while True:
                        try:
                            p.watch(k("n"))
                            value = int(p.get(k("n")) or 0)
                            p.multi()
                            p.set(k("n"), value + 1)
                            p.rpush(k("log"), value + 1)
                            p.execute()
                            break
                        except s.lib.WatchError:
                            retries.append(1)
        except Exception as error:
            failures.append(error)

    together(count, 8)
    if failures:
        raise failures[0]
    r = s.client()
    s.equal(r.get(k("n")), b"160")
    s.equal(r.lrange(k("log"), 0, -1), [str(i + 1).encode() for i in range(160)])


def together(work, count):
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        if thread.is_alive():
            raise AssertionError("a thread does not end")


SCENARIOS = [pipelines, multi, watch, counter]
