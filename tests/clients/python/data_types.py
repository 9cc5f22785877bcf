"""Strings, hashes, lists, sets, sorted sets, scans and the errors of commands."""


def strings(s):
    r, k = s.client(), s.key
    s.equal(r.set(k("a"), "1"), True)
    s.equal(r.get(k("a")), b"1")
    s.equal(r.get(k("none")), None)
    s.equal(r.set(k("a"), "2", nx=True), None)
    s.equal(r.set(k("a"), "2", xx=True), True)
    s.equal(r.set(k("a"), "3", get=True), b"2")
    s.equal(r.set(k("t"), "x", ex=100), True)
    s.true(90 < r.ttl(k("t")) <= 100, "the time to live of SET EX")
    s.equal(r.set(k("t"), "y", keepttl=True), True)
    s.true(90 < r.ttl(k("t")) <= 100, "KEEPTTL keeps it")
    s.equal([r.persist(k("t")), r.ttl(k("t")), r.ttl(k("none"))], [True, -1, -2])
    s.equal([r.incr(k("n")), r.incrby(k("n"), 41), r.decrby(k("n"), 2)], [1, 42, 40])
    s.equal(r.incrbyfloat(k("f"), 1.5), 1.5)
    s.equal([r.append(k("s"), "Hello "), r.append(k("s"), "World")], [6, 11])
    s.equal([r.getrange(k("s"), 0, 4), r.getrange(k("s"), -5, -1)], [b"Hello", b"World"])
    s.equal([r.setrange(k("s"), 6, "Redis"), r.get(k("s")), r.strlen(k("s"))], [11, b"Hello Redis", 11])
    s.equal(r.mset({k(f"m{i}"): i for i in range(50)}), True)
    s.equal(r.mget([k(f"m{i}") for i in range(51)]), [str(i).encode() for i in range(50)] + [None])
    s.equal(r.msetnx({k("m0"): 9, k("new"): 9}), False)
    s.equal([r.exists(k("m0"), k("m1"), k("new")), r.delete(k("m0"), k("m1"), k("new"))], [2, 2])
    s.equal([r.getdel(k("m2")), r.get(k("m2")), r.getex(k("m3"), persist=True)], [b"2", None, b"3"])
    # Any byte may stand in a key and in a value.
    odd = bytes(range(256)) + b"\r\n$5\r\n*3\r\n"
    s.equal(r.set(k("odd").encode() + odd, odd), True)
    s.equal(r.get(k("odd").encode() + odd), odd)
    s.equal([r.set(k("empty"), ""), r.get(k("empty"))], [True, b""])
    s.equal([r.set(k("ü"), "Grüße"), r.get(k("ü")).decode()], [True, "Grüße"])
    s.equal([r.setbit(k("b"), 7, 1), r.getbit(k("b"), 7), r.bitcount(k("b"))], [0, 1, 1])
    s.see("BITFIELD", r.bitfield(k("b")).set("u8", 0, 255).incrby("u8", 0, 1, "FAIL").get("u4", 4).execute())
    s.see("PFADD", [r.pfadd(k("h"), *range(100)), r.pfcount(k("h"))])
    s.equal([r.rename(k("n"), k("n2")), r.type(k("n2")), r.type(k("n"))], [True, b"string", b"none"])
    s.equal(r.copy(k("n2"), k("n3")), True)
    dumped = r.dump(k("n3"))
    s.see("DUMP", dumped)
    s.equal([r.restore(k("n4"), 0, dumped), r.get(k("n4"))], [b"OK", b"40"])
    s.see("OBJECT", [r.object("encoding", k("n4")), r.object("refcount", k("none"))])
    s.equal(r.unlink(k("n2"), k("n3"), k("n4")), 3)
    s.call(r, "LCS" if s.engine >= (7, 0) else "GETRANGE", k("s"), k("s"), *([] if s.engine >= (7, 0) else ["1"]))
    s.see("SORT", [r.rpush(k("u"), 3, 1, 2), r.sort(k("u")), r.sort(k("u"), desc=True, alpha=True)])
    decoded = s.client(decode_responses=True)
    s.equal(decoded.get(k("ü")), "Grüße")


def hashes(s):
    r, k = s.client(), s.key
    s.equal(r.hset(k("h"), mapping={f"f{i}": i for i in range(100)}), 100)
    s.equal(r.hgetall(k("h")), {f"f{i}".encode(): str(i).encode() for i in range(100)})
    s.equal(r.hmget(k("h"), "f1", "none", "f2"), [b"1", None, b"2"])
    s.equal([r.hincrby(k("h"), "f1", 9), r.hincrbyfloat(k("h"), "f2", 0.5)], [10, 2.5])
    s.equal([r.hexists(k("h"), "f1"), r.hlen(k("h")), r.hstrlen(k("h"), "f99")], [True, 100, 2])
    s.equal([r.hdel(k("h"), "f1", "none"), r.hsetnx(k("h"), "f1", 1), r.hsetnx(k("h"), "f1", 2)], [1, 1, 0])
    s.equal(sorted(r.hkeys(k("h"))), sorted(f"f{i}".encode() for i in range(100)))
    s.equal(len(r.hvals(k("h"))), 100)
    field = r.hrandfield(k("h"), 3, withvalues=True)
    s.see("HRANDFIELD", [type(field).__name__, len(field), type(field[0]).__name__])
    s.equal(r.hgetall(k("none")), {})


def lists(s):
    r, k = s.client(), s.key
    s.equal([r.rpush(k("l"), *range(10)), r.lpush(k("l"), "a")], [10, 11])
    s.equal(r.lrange(k("l"), 0, 2), [b"a", b"0", b"1"])
    s.equal([r.lpop(k("l")), r.rpop(k("l"), 2), r.llen(k("l"))], [b"a", [b"9", b"8"], 8])
    s.equal([r.linsert(k("l"), "before", "3", "x"), r.lindex(k("l"), 3), r.lpos(k("l"), "x")], [9, b"x", 3])
    s.equal([r.lset(k("l"), 3, "y"), r.lrem(k("l"), 0, "y"), r.ltrim(k("l"), 1, -2)], [True, 1, True])
    s.equal(r.lrange(k("l"), 0, -1), [str(i).encode() for i in range(1, 7)])
    s.equal([r.lmove(k("l"), k("l2"), "LEFT", "RIGHT"), r.rpoplpush(k("l"), k("l2"))], [b"1", b"6"])
    s.equal(r.lpop(k("none")), None)
    if s.engine >= (7, 0):
        s.equal(r.lmpop(2, k("none"), k("l2"), direction="RIGHT", count=5), [k("l2").encode(), [b"1", b"6"]])
        s.equal(r.lmpop(1, k("none"), direction="LEFT"), None)


def sets_and_sorted_sets(s):
    r, k = s.client(), s.key
    s.equal([r.sadd(k("a"), *range(10)), r.sadd(k("b"), *range(5, 15)), r.scard(k("a"))], [10, 10, 10])
    s.equal(set(r.sinter(k("a"), k("b"))), {str(i).encode() for i in range(5, 10)})
    s.equal(len(r.sunion(k("a"), k("b"))), 15)
    s.equal([r.sdiffstore(k("d"), k("a"), k("b")), r.smismember(k("d"), ["1", "9"])], [5, [1, 0]])
    s.see("SMEMBERS", type(r.smembers(k("a"))).__name__)
    s.equal([r.smove(k("a"), k("b"), "0"), r.sismember(k("b"), "0"), r.srem(k("b"), "0", "no")], [True, 1, 1])
    s.equal(len(r.spop(k("b"), 3)), 3)
    s.equal(r.zadd(k("z"), {f"m{i}": i for i in range(10)}), 10)
    s.equal([r.zadd(k("z"), {"m1": 100}, xx=True, ch=True), r.zscore(k("z"), "m1")], [1, 100.0])
    s.equal([r.zincrby(k("z"), -99, "m1"), r.zrank(k("z"), "m1"), r.zrevrank(k("z"), "m1")], [1.0, 1, 8])
    s.see("ZRANGE", r.zrange(k("z"), 0, 2, withscores=True))
    s.see("ZRANGE BYSCORE", r.zrange(k("z"), "(2", "+inf", byscore=True, offset=1, num=3, withscores=True))
    s.equal(r.zrevrange(k("z"), 0, 1), [b"m9", b"m8"])
    s.equal(r.zrangebyscore(k("z"), 3, 5), [b"m3", b"m4", b"m5"])
    r.zadd(k("inf"), {"low": "-inf", "high": "inf", "third": 1 / 3, "large": 1e300})
    s.see("infinite scores", r.zrange(k("inf"), 0, -1, withscores=True))
    s.see("ZPOPMIN", [r.zpopmin(k("z")), r.zpopmax(k("z"), 2), r.zpopmin(k("none"))])
    s.see("ZMSCORE", r.zmscore(k("z"), ["m3", "none"]))
    s.see("ZUNION", r.zunion({k("z"): 2, k("inf"): 1}, aggregate="max", withscores=True))
    s.equal([r.zcount(k("z"), 0, 4), r.zlexcount(k("z"), "-", "+"), r.zcard(k("z"))], [4, 7, 7])
    s.equal([r.zremrangebyscore(k("z"), 0, 4), r.zrem(k("z"), "m5")], [4, 1])
    r.geoadd(k("g"), [13.361389, 38.115556, "Palermo", 15.087269, 37.502669, "Catania"])
    s.see("GEODIST", r.geodist(k("g"), "Palermo", "Catania", "km"))
    s.see("GEOSEARCH", r.geosearch(k("g"), longitude=15, latitude=37, radius=200, unit="km", withcoord=True))
    s.see("GEOPOS", r.geopos(k("g"), "Palermo", "none"))


def scans(s):
    r, k = s.client(), s.key
    with r.pipeline(transaction=False) as p:
        for i in range(3000):
            p.set(k(f"{i:04}"), i)
        p.hset(k("h"), mapping={f"f{i}": i for i in range(1000)})
        p.sadd(k("s"), *(f"m{i}" for i in range(1000)))
        p.zadd(k("z"), {f"m{i}": i for i in range(1000)})
        p.execute()
    found = list(r.scan_iter(match=k("*"), count=500))
    s.equal(sorted(set(found)), sorted(k(n).encode() for n in [*(f"{i:04}" for i in range(3000)), "h", "s", "z"]))
    s.equal(sorted(set(r.scan_iter(match=k("00?5"), count=1000))), [k(f"00{i}5").encode() for i in range(10)])
    s.equal(set(r.scan_iter(match=k("*"), count=1000, _type="hash")), {k("h").encode()})
    s.equal(len(set(r.hscan_iter(k("h"), count=100))), 1000)
    s.equal(len(set(r.sscan_iter(k("s"), match="m99*"))), 11)
    s.equal(sorted(set(r.zscan_iter(k("z"))))[0], (b"m0", 0.0))
    s.true(r.dbsize() >= 3003, "DBSIZE counts them")
    s.equal(len(r.keys(k("001?"))), 10)


def errors(s):
    r, k = s.client(), s.key
    r.lpush(k("list"), 1)
    r.set(k("text"), "abc")
    s.fails(r.get, k("list"), says="WRONGTYPE")
    s.fails(r.hset, k("list"), "f", 1, says="WRONGTYPE")
    s.fails(r.incr, k("text"), says="not an integer")
    for words in [
        ["NOSUCH", "a", "b"],
        ["GET"],
        ["GET", "a", "b"],
        ["SET", k("text"), "x", "EX", "0"],
        ["SET", k("text"), "x", "EX", "ten"],
        ["SET", k("text"), "x", "NX", "XX"],
        ["LSET", k("list"), 9, "x"],
        ["LSET", k("none"), 0, "x"],
        ["OBJECT", "NOSUCH", k("text")],
        ["XADD", k("x"), "0-0", "f", "v"],
        ["EXEC"],
        ["DISCARD"],
        ["RESTORE", k("bad"), 0, "garbage"],
        ["RENAME", k("none"), k("other")],
        ["ZADD", k("z"), "NX", "XX", 1, "m"],
        ["EXPIRE", k("text"), "9223372036854775807"],
        ["SETRANGE", k("text"), -1, "x"],
        ["EVAL", "return", "0"],
        ["EVAL", "return 1", "x"],
        ["EVALSHA", "f" * 40, 0],
        ["SELECT", "999"],
        ["SELECT", "x"],
        ["HELLO", "4"],
        ["HELLO", "x"],
        ["CLIENT"],
        ["CLIENT", "KILL", "1.2.3.4:5"],
        ["CLIENT", "SETNAME", "with space"],
        ["CLIENT", "REPLY", "maybe"],
        ["CLIENT", "TRACKING", "maybe"],
        ["CONFIG"],
        ["COMMAND", "NOSUCH"],
        ["COMMAND GETKEYS", "MSET", "a", "1", "b", "2"],
    ]:
        s.call(r, *words)
        s.equal(r.echo("still in order"), b"still in order", f"after {words}")


SCENARIOS = [strings, hashes, lists, sets_and_sorted_sets, scans, errors]
