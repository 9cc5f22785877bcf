"""Pools, names, signing in, connections that break, what is refused."""

import threading


def pool(s):
    """Fifty connections in use at once, each with answers of its own."""
    k = s.key
    r = s.pool(kind=s.lib.BlockingConnectionPool, max_connections=50, timeout=20)
    barrier = threading.Barrier(50)
    failures, ids = [], []

    def work(n):
        try:
            barrier.wait(30)
            ids.append(r.client_id())
            for i in range(20):
                r.set(k(f"{n}"), f"{n}:{i}")
                got = r.get(k(f"{n}"))
                if got != f"{n}:{i}".encode():
                    raise AssertionError(f"{got} for {n}:{i}")
            with r.pipeline(transaction=n % 2 == 0) as p:
                for i in range(50):
                    p.hset(k(f"h{n}"), f"f{i}", f"{n}:{i}")
                p.hvals(k(f"h{n}"))
                values = p.execute()[-1]
            if values != [f"{n}:{i}".encode() for i in range(50)]:
                raise AssertionError(f"{values}")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        s.true(not thread.is_alive(), "a thread does not end")
    if failures:
        raise failures[0]
    s.true(len(set(ids)) > 1, "several connections")
    # One connection more than allowed is an error of the client.
    small = s.pool(max_connections=2)
    get = small.connection_pool.get_connection
    held = [get() if s.library == "redis" else get("") for _ in range(2)]
    s.fails(small.ping, kind=s.lib.ConnectionError)
    for connection in held:
        small.connection_pool.release(connection)
    s.equal(small.ping(), True)


def identity(s):
    k = s.key
    r = s.client(client_name="worker-7", single_connection_client=True)
    s.equal(text(r.client_getname()), "worker-7")
    s.equal(r.client_id(), r.client_id())
    me = line(r.execute_command("CLIENT", "INFO"))
    s.equal([me["name"], me["id"]], ["worker-7", str(r.client_id())])
    s.see("the user", me["user"])
    if s.engine >= (7, 0):
        s.see("the protocol", me["resp"])
    if s.engine >= (8, 0):
        s.equal(me["lib-name"], {"redis": "redis-py", "valkey": "valkey-py"}[s.library])
        s.true(me["lib-ver"][0].isdigit(), "the version of the library")
    listed = [line(c) for c in r.execute_command("CLIENT", "LIST").splitlines()]
    s.equal([c["name"] for c in listed if c["id"] == str(r.client_id())], ["worker-7"])
    other = s.client(single_connection_client=True)
    s.true(other.client_id() != r.client_id(), "ids are distinct")
    s.equal([other.client_getname(), other.client_setname("x"), text(other.client_getname())], [None, True, "x"])
    hello = r.execute_command("HELLO")
    facts = hello if isinstance(hello, dict) else dict(zip(hello[::2], hello[1::2]))
    s.see("HELLO", {f: v for f, v in facts.items() if f != b"id"})
    s.equal(facts[b"id"], r.client_id())
    for words in [["ECHO", "x"], ["PING"], ["PING", "x"], ["ACL", "WHOAMI"], ["TIME", "x"], ["ROLE", "x"]]:
        s.call(r, *words)
    if s.shards == 1:
        s.call(r, "SELECT", 3)
        s.call(r, "SET", k("in 3"), "x")
        s.call(r, "SELECT", 0)
        s.call(r, "GET", k("in 3"))
        s.equal(s.client(db=3).get(k("in 3")), b"x")
        s.equal([s.client(db=3).move(k("in 3"), 0), r.get(k("in 3"))], [True, b"x"])
    s.see("INFO", sorted(set(r.info()) & {"redis_version", "role", "connected_clients", "used_memory", "db0"}))
    s.see("INFO of the server", r.info("server")["redis_version"])
    s.see("CONFIG GET", r.config_get("maxmemory-samples"))
    s.true(r.time()[0] > 1_700_000_000, "TIME")
    # Through an endpoint it is less than the engine's.
    s.true(r.command_count() > 150, "COMMAND COUNT")
    s.equal(r.memory_usage(k("none")), None)
    s.see("LATENCY", type(r.execute_command("LATENCY", "LATEST")).__name__)
    s.see("SLOWLOG", type(r.slowlog_get(1)).__name__)


def killed(s):
    """A connection that is cut comes back by itself; nothing of the old one is left over."""
    k = s.key
    # CLIENT LIST and CLIENT KILL know the connections of one node: all of these are on one.
    s = OneNode(s)
    killer = s.client()
    victim = s.client(client_name="victim", single_connection_client=True, **s.again())
    victim.set(k("a"), 1)
    first = victim.client_id()
    s.equal(killer.client_kill_filter(_id=str(first)), 1)
    gone(s, killer, first)
    s.equal(victim.get(k("a")), b"1")
    s.true(victim.client_id() != first, "it is another connection")
    s.equal(text(victim.client_getname()), "victim")
    # Without the client's own retries the break is an error, and the next command works.
    plain = s.client(**s.once(), single_connection_client=True)
    one = plain.client_id()
    s.equal(killer.client_kill_filter(_id=str(one)), 1)
    gone(s, killer, one)
    s.true(breaks(s, plain), "the break is seen")
    s.equal(plain.ping(), True)
    # A blocked one.
    answer = []
    waiter = s.client(**s.once(), single_connection_client=True)
    two = waiter.client_id()

    def wait():
        try:
            answer.append(waiter.blpop([k("none")], timeout=0))
        except s.lib.ConnectionError:
            answer.append("cut")

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    s.until("it blocks", lambda: flags(killer, two) is not None and "b" in flags(killer, two))
    s.equal(killer.client_kill_filter(_id=str(two)), 1)
    thread.join(20)
    s.equal(answer, ["cut"])
    # The endpoint's own connection to the engine ends a moment later than the client's, and may
    # take one element meanwhile: docs/clients.md.
    pushed = [f"{n} not for the dead" for n in range(2 if s.proxied else 1)]
    for value in pushed:
        killer.rpush(k("none"), value)
    s.equal(killer.rpop(k("none")), pushed[-1].encode())
    # One with a transaction half-way: nothing of it happens.
    half = s.client(**s.once(), single_connection_client=True)
    three = half.client_id()
    half.execute_command("MULTI")
    half.execute_command("SET", k("half"), 1)
    s.equal(killer.client_kill_filter(_id=str(three)), 1)
    gone(s, killer, three)
    s.equal(killer.get(k("half")), None)
    # A subscriber subscribes again.
    sub = s.client(**s.again()).pubsub(ignore_subscribe_messages=True)
    sub.subscribe(k("c"))
    s.until("subscribed", lambda: sub.get_message(timeout=0.02) or killer.publish(k("c"), "x"))
    port = sub.connection._sock.getsockname()[1]
    mine = [c["id"] for c in killer.client_list(_type="pubsub") if c["addr"].endswith(f":{port}")]
    s.equal([killer.client_kill_filter(_id=i) for i in mine], [1])
    seen = []

    def again():
        killer.publish(k("c"), "after")
        message = sub.get_message(timeout=0.05)
        if message:
            seen.append(message["data"])
        return b"after" in seen

    s.until("messages come again", again)
    sub.close()
    s.fails(killer.client_kill, "127.0.0.1:1")


def line(described):
    """The fields of a line of CLIENT LIST."""
    return dict(field.split("=", 1) for field in text(described).split())


def text(value):
    """Names come as text or as bytes, by the version of the protocol."""
    return value.decode() if isinstance(value, bytes) else value


class OneNode:
    """A side whose clients all go to the same node."""

    def __init__(self, side):
        self._side = side

    def __getattr__(self, name):
        return getattr(self._side, name)

    def client(self, **more):
        return self._side.client(host=self._side.hosts[0], **more)


def flags(killer, client_id):
    return next((c["flags"] for c in killer.client_list() if c["id"] == str(client_id)), None)


def gone(s, killer, client_id):
    s.until("it is gone", lambda: flags(killer, client_id) is None)


def breaks(s, client):
    try:
        client.ping()
        return False
    except s.lib.ConnectionError:
        return True


def authentication(s):
    k = s.key
    wrong = s.Client(**s.options(password="wrong", **s.once()))
    s.fails(wrong.get, k("a"), kind=s.lib.AuthenticationError)
    unsigned = s.Client(**s.options(password=None, **s.once()))
    s.fails(unsigned.get, k("a"), kind=s.lib.AuthenticationError)
    named = s.client(username="default")
    s.equal(named.ping(), True)
    other = s.Client(**s.options(username="nobody", **s.once()))
    s.fails(other.ping, kind=s.lib.AuthenticationError)
    # By hand, in version 2: what is said before and after.
    connection = s.lib.Connection(host=s.hosts[0], port=s.port, protocol=2, socket_timeout=20)
    # Nothing is said before it is asked: the library's own greeting needs no password in version 2.
    connection.on_connect = connection.on_connect_check_health = lambda *_, **__: connection._parser.on_connect(connection)
    connection.connect()
    for words in [
        ["PING"],
        ["GET", "a"],
        ["NOSUCH"],
        ["HELLO"],
        ["HELLO", "3"],
        ["CLIENT", "SETNAME", "x"],
        ["SUBSCRIBE", "x"],
        ["MULTI"],
        ["AUTH"],
        ["AUTH", "a", "b", "c"],
        ["AUTH", "wrong"],
        ["AUTH", "nobody", s.password],
        ["HELLO", "2", "AUTH", "default", "wrong"],
        ["GET", "a"],
        ["HELLO", "2", "AUTH", "default", s.password, "SETNAME", "me"],
        ["CLIENT", "GETNAME"],
        ["AUTH", "wrong"],
        ["GET", k("none")],
        ["AUTH", s.password],
        ["AUTH", "default", s.password],
        ["RESET"],
        ["GET", "a"],
        ["AUTH", s.password],
        ["GET", k("none")],
        ["QUIT"],
    ]:
        connection.send_command(*words, check_health=False)
        try:
            answer = connection.read_response(disconnect_on_error=False)
        except s.lib.RedisError as error:
            answer = f"{type(error).__name__}: {error}"
        if words[0] == "HELLO" and isinstance(answer, list):
            facts = dict(zip(answer[::2], answer[1::2]))
            answer = {f: v for f, v in facts.items() if f != b"id"}
        s.see(" ".join(words), answer)
    connection.disconnect()


authentication.needs = lambda s: s.password


def no_password(s):
    r = s.client(single_connection_client=True, **s.once())
    for words in [["AUTH", "x"], ["AUTH", "default", "anything"], ["AUTH", "nobody", "x"], ["PING"]]:
        s.call(r, *words)


no_password.needs = lambda s: not s.password


def refused(s):
    """What would break the platform is refused by name, and hurts nothing."""
    r, k = s.client(single_connection_client=True), s.key
    r.set(k("a"), "stays")
    for words in [
        ["SHUTDOWN"],
        ["SHUTDOWN", "NOSAVE"],
        ["REPLICAOF", "127.0.0.1", "1"],
        ["SLAVEOF", "NO", "ONE"],
        ["FAILOVER"],
        ["DEBUG", "SLEEP", "0"],
        ["CONFIG", "SET", "maxmemory", "1"],
        ["CONFIG", "REWRITE"],
        ["CONFIG", "RESETSTAT"],
        ["ACL", "SETUSER", "x"],
        ["ACL", "LIST"],
        ["MODULE", "LOAD", "/x.so"],
        ["SAVE"],
        ["BGSAVE"],
        ["BGREWRITEAOF"],
        ["CLUSTER", "RESET"],
        ["SYNC"],
        ["PSYNC", "?", "-1"],
        ["REPLCONF", "listening-port", "1"],
        ["MIGRATE", "127.0.0.1", "1", k("a"), "0", "1"],
        ["CLIENT", "TRACKING", "ON", "REDIRECT", "1"],
        ["SCRIPT", "DEBUG", "YES"],
    ]:
        s.fails(r.execute_command, *words, says="not available")
        s.equal(r.get(k("a")), b"stays", f"after {words}")
    with r.pipeline() as p:
        p.set(k("a"), "changed")
        p.execute_command("CONFIG", "SET", "maxmemory", "1")
        s.fails(p.execute, kind=s.lib.ResponseError)
    s.equal(r.get(k("a")), b"stays")


refused.only_endpoint = True


def tracking(s):
    """Client-side caching by hand: what was read is announced when another changes it."""
    k = s.key
    other = s.client()
    other.mset({k("a"): 1, k("b"): 1, k("c"): 1})
    connection = s.connection()
    pushed = []
    connection._parser.set_invalidation_push_handler(lambda message: pushed.append(message))

    def ask(*words):
        connection.send_command(*words)
        return connection.read_response()

    s.equal(ask("CLIENT", "TRACKING", "ON"), b"OK")
    s.equal([ask("GET", k("a")), ask("MGET", k("b"), k("c"))], [b"1", [b"1", b"1"]])
    s.see("CLIENT TRACKINGINFO", ask("CLIENT", "TRACKINGINFO"))
    other.set(k("a"), 2)
    s.until("it is announced", lambda: ask("PING") and pushed)
    s.see("what is announced", [list(m) for m in pushed])
    pushed.clear()
    other.set(k("a"), 3)
    other.set(k("b"), 3)
    s.until("it is announced", lambda: ask("PING") and pushed)
    s.see("only what was read since", [list(m) for m in pushed])
    s.equal(ask("CLIENT", "TRACKING", "OFF"), b"OK")
    s.equal(ask("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", k("p")), b"OK")
    pushed.clear()
    other.set(k("p1"), 1)
    other.set(k("q1"), 1)
    s.until("it is announced", lambda: ask("PING") and pushed)
    s.see("with a prefix", [list(m) for m in pushed])
    connection.disconnect()


tracking.needs = lambda s: s.protocol == 3

SCENARIOS = [pool, identity, killed, authentication, no_password, refused, tracking]
