"""Large values, commands and replies."""

import threading


def large_values(s):
    r, k = s.client(), s.key
    value = bytes(range(256)) * 4096 * 20
    s.equal(r.set(k("v"), value), True)
    s.true(r.get(k("v")) == value, "20 MiB come back as they were sent")
    s.equal(r.strlen(k("v")), len(value))
    s.true(r.getrange(k("v"), 5_000_000, 9_999_999) == value[5_000_000:10_000_000], "a part of them")
    with r.pipeline() as p:
        p.append(k("v"), value[: 3 << 20]).strlen(k("v"))
        s.equal(p.execute(), [len(value) + (3 << 20)] * 2)
    s.true(r.eval("return {#ARGV[1], ARGV[1]}", 0, value[: 5 << 20]) == [5 << 20, value[: 5 << 20]], "in a script")
    r.delete(k("v"))


def large_among_small(s):
    """Others' small commands get their own answers while large ones go by."""
    k = s.key
    stop, failures = threading.Event(), []

    def small(n):
        try:
            r = s.client()
            i = 0
            while not stop.is_set():
                r.set(k(f"s{n}"), i)
                got = r.get(k(f"s{n}"))
                if got != str(i).encode():
                    raise AssertionError(f"{got} for {i}")
                i += 1
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=small, args=(n,), daemon=True) for n in range(3)]
    for thread in threads:
        thread.start()
    r = s.client()
    value = b"0123456789abcdef" * (4 << 16)
    for i in range(5):
        r.set(k(f"l{i}"), value)
    got = r.mget([k(f"l{i}") for i in range(5)])
    s.true(all(one == value for one in got), "20 MiB in one reply")
    stop.set()
    for thread in threads:
        thread.join(20)
        s.true(not thread.is_alive(), "a thread does not end")
    if failures:
        raise failures[0]
    r.delete(*(k(f"l{i}") for i in range(5)))


def many_elements(s):
    r, k = s.client(), s.key
    items = [f"{i}" for i in range(50_000)]
    s.equal(r.rpush(k("l"), *items), 50_000)
    s.true(r.lrange(k("l"), 0, -1) == [i.encode() for i in items], "50,000 elements")
    s.equal(r.delete(k("l")), 1)
    with r.pipeline(transaction=False) as p:
        for i in range(100):
            p.set(k("p"), f"{i}" * 20_000)
            p.get(k("p"))
        answers = p.execute()
    s.true(answers[1::2] == [(f"{i}" * 20_000).encode() for i in range(100)], "commands around 64 KiB, in order")
    r.delete(k("p"))


SCENARIOS = [large_values, large_among_small, many_elements]
