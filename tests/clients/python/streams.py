"""Streams: entries, groups of consumers, blocking reads."""

import threading


def streams(s):
    r, k = s.client(), s.key
    for i in range(1, 101):
        s.equal(r.xadd(k("x"), {"n": i, "even": i % 2}, id=f"{i}-1"), f"{i}-1".encode())
    s.fails(r.xadd, k("x"), {"n": 1}, id="5-1", says="equal or smaller")
    s.equal(r.xlen(k("x")), 100)
    s.see("XRANGE", r.xrange(k("x"), min="10", max="12"))
    s.see("XREVRANGE", r.xrevrange(k("x"), count=2))
    s.see("XREAD", r.xread({k("x"): "98", k("none"): "0"}, count=5))
    s.see("XREAD of nothing", r.xread({k("x"): "100-1"}))
    s.see("XTRIM", [r.xtrim(k("x"), maxlen=90, approximate=False), r.xdel(k("x"), "50-1", "1-1"), r.xlen(k("x"))])
    s.equal(r.xadd(k("x"), {"n": 1}, nomkstream=True, id="200-0"), b"200-0")
    s.equal(r.xadd(k("none"), {"n": 1}, nomkstream=True), None)


def groups(s):
    r, k = s.client(), s.key
    s.equal(r.xgroup_create(k("x"), "g", id="0", mkstream=True), True)
    s.fails(r.xgroup_create, k("x"), "g", says="already exists")
    s.fails(r.xreadgroup, "nogroup", "c", {k("x"): ">"}, says="No such key")
    for i in range(1, 21):
        r.xadd(k("x"), {"n": i}, id=f"{i}-0")
    first = r.xreadgroup("g", "one", {k("x"): ">"}, count=12)
    s.see("XREADGROUP", first)
    second = r.xreadgroup("g", "two", {k("x"): ">"}, count=100)
    s.see("XREADGROUP by another", second)
    s.equal(r.xack(k("x"), "g", *(f"{i}-0" for i in range(1, 6))), 5)
    s.see("XPENDING", r.xpending(k("x"), "g"))
    pending = r.xpending_range(k("x"), "g", min="-", max="+", count=100)
    s.equal([p["message_id"] for p in pending], [f"{i}-0".encode() for i in range(6, 21)])
    s.see("XCLAIM", r.xclaim(k("x"), "g", "two", min_idle_time=0, message_ids=["6-0", "7-0"]))
    s.see("XCLAIM JUSTID", r.xclaim(k("x"), "g", "two", min_idle_time=0, message_ids=["8-0"], justid=True))
    s.see("XAUTOCLAIM", r.xautoclaim(k("x"), "g", "three", min_idle_time=0, start_id="9-0", count=3))
    s.see("the own pending ones", r.xreadgroup("g", "three", {k("x"): "0"}))
    groups = r.xinfo_groups(k("x"))
    s.equal((groups[0]["name"], groups[0]["consumers"], groups[0]["pending"]), (b"g", 3, 15))
    s.see("XINFO GROUPS", [sorted(map(str, g)) for g in groups])
    stream = r.xinfo_stream(k("x"))
    s.see("XINFO STREAM", {f: stream[f] for f in ("length", "last-generated-id", "groups", "first-entry")})
    s.see("XINFO STREAM FULL", sorted(map(str, r.xinfo_stream(k("x"), full=True))))
    s.equal(sorted(c["name"] for c in r.xinfo_consumers(k("x"), "g")), [b"one", b"three", b"two"])
    s.equal([r.xgroup_delconsumer(k("x"), "g", "three"), r.xgroup_setid(k("x"), "g", "0")], [3, True])
    s.equal([r.xgroup_createconsumer(k("x"), "g", "new"), r.xgroup_destroy(k("x"), "g")], [1, 1])


def workers(s):
    """Four consumers of one group, blocking, over different nodes: each entry goes to exactly one."""
    k = s.key
    producer = s.client()
    producer.xgroup_create(k("x"), "g", id="$", mkstream=True)
    done, lock, failures = [], threading.Lock(), []

    def work(name):
        try:
            r = s.client()
            while True:
                for _, entries in as_pairs(r.xreadgroup("g", name, {k("x"): ">"}, count=7, block=5000)):
                    for entry, fields in entries:
                        r.xack(k("x"), "g", entry)
                        if fields[b"n"] == b"end":
                            return
                        with lock:
                            done.append((name, int(fields[b"n"])))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(f"c{i}",), daemon=True) for i in range(4)]
    for thread in threads:
        thread.start()
    for i in range(300):
        producer.xadd(k("x"), {"n": i})
    s.until("300 entries are worked on", lambda: len(done) >= 300 or failures)
    # One at a time: a consumer that gets two ends would leave another waiting.
    while any(thread.is_alive() for thread in threads):
        alive = sum(thread.is_alive() for thread in threads)
        producer.xadd(k("x"), {"n": "end"})
        s.until("a consumer ends", lambda: sum(t.is_alive() for t in threads) < alive or failures)
        if failures:
            raise failures[0]
    s.equal(sorted(n for _, n in done), list(range(300)))
    for name in {name for name, _ in done}:
        own = [n for who, n in done if who == name]
        s.equal(own, sorted(own), f"the order of {name}")
    s.equal(producer.xpending(k("x"), "g")["pending"], 0)


def as_pairs(reply):
    """What a read of streams returns, in either version of the protocol."""
    if isinstance(reply, dict):
        return [(name, entry) for name, batches in reply.items() for entry in batches]
    return reply or []


SCENARIOS = [streams, groups, workers]
