"""Publishing and subscribing, also across nodes; MONITOR."""

import threading


def take(s, subscriber, count):
    """The next messages, without times between them."""
    got = []

    def more():
        message = subscriber.get_message(timeout=0.05)
        if message:
            got.append((message["type"], message["pattern"], message["channel"], message["data"]))
        return len(got) >= count

    s.until(f"{count} messages", more, pause=0)
    return got


def publish_subscribe(s):
    publisher, k = s.client(), s.key
    with s.client().pubsub() as sub:
        sub.subscribe(k("a"), k("b"))
        s.see("subscribed", take(s, sub, 2))
        sub.psubscribe(k("p*"), k("p[12]"))
        s.see("subscribed to patterns", take(s, sub, 2))
        s.equal([publisher.publish(k("a"), "1"), publisher.publish(k("none"), "1")], [1, 0])
        s.equal(publisher.publish(k("p1"), "two patterns"), 2)
        # The engine tells of several patterns in no order.
        s.see("messages", sorted(take(s, sub, 3), key=repr))
        s.see("PUBSUB NUMSUB", publisher.pubsub_numsub(k("a"), k("none")))
        s.see("PUBSUB CHANNELS", sorted(publisher.pubsub_channels(k("*"))))
        sub.ping("hello")
        s.see("pong", take(s, sub, 1))
        sub.unsubscribe(k("a"))
        s.see("unsubscribed", take(s, sub, 1))
        s.equal(publisher.publish(k("a"), "2"), 0)
        for i in range(500):
            s.equal(publisher.publish(k("b"), i), 1)
        s.equal([int(m[3]) for m in take(s, sub, 500)], list(range(500)))
        with publisher.pipeline() as p:
            p.publish(k("b"), "in a transaction").publish(k("p2"), "pattern")
            s.equal(p.execute(), [1, 2])
        s.see("from a transaction", sorted(take(s, sub, 3), key=repr))
        publisher.eval("redis.call('publish', KEYS[1], ARGV[1])", 1, k("b"), "from a script")
        s.see("from a script", take(s, sub, 1))
        sub.unsubscribe()
        sub.punsubscribe()
        s.equal(len(take(s, sub, 3)), 3)
    s.until("nobody is subscribed", lambda: publisher.pubsub_numsub(k("b")) == [(k("b").encode(), 0)])


def fan_out(s):
    """Subscribers on every node hear every publisher, each publisher's messages in order."""
    k = s.key
    heard = [[] for _ in range(6)]
    subscribers = []
    for own in heard:
        sub = s.client().pubsub(ignore_subscribe_messages=True)
        sub.psubscribe(**{k("*"): lambda message, own=own: own.append(message["data"])})
        subscribers.append(sub)
    threads = [sub.run_in_thread(sleep_time=0.05, daemon=True) for sub in subscribers]
    publishers = [s.client() for _ in range(3)]
    s.until("all are subscribed", lambda: publishers[0].publish(k("probe"), "probe") == 6)

    def publish(n):
        for i in range(100):
            publishers[n].publish(k(f"news{n}"), f"{n}:{i}")

    work = [threading.Thread(target=publish, args=(n,), daemon=True) for n in range(3)]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join(30)
    wanted = 300
    s.until(
        "everything is heard", lambda: all(len([d for d in own if d != b"probe"]) >= wanted for own in heard)
    )
    for thread in threads:
        thread.stop()
    for thread in threads:
        thread.join(10)
    for own in heard:
        for n in range(3):
            mine = [d for d in own if d.startswith(b"%d:" % n)]
            s.equal(mine, [b"%d:%d" % (n, i) for i in range(100)])


def sharded(s):
    publisher, k = s.client(), s.key
    sub = s.client().pubsub()
    sub.ssubscribe(k("a"))
    s.equal(s.until("subscribed", lambda: sub.get_sharded_message(timeout=0.05))["type"], "ssubscribe")
    s.equal(publisher.spublish(k("a"), "x"), 1)
    s.see("a message", s.until("a message", lambda: sub.get_sharded_message(timeout=0.05)))
    s.see("PUBSUB SHARDNUMSUB", publisher.pubsub_shardnumsub(k("a")))
    sub.sunsubscribe(k("a"))
    s.equal(s.until("unsubscribed", lambda: sub.get_sharded_message(timeout=0.05))["type"], "sunsubscribe")
    sub.close()


sharded.needs = lambda s: s.engine >= (7, 0) and hasattr(s.lib.client.PubSub, "get_sharded_message")


def while_subscribed(s):
    """What may be said on a subscribed connection."""
    r, k = s.client(), s.key
    connection = s.connection()
    for words in [
        ["SUBSCRIBE", k("a")],
        ["GET", k("x")],
        ["PING"],
        ["SET", k("x"), "1"],
        ["MULTI"],
        ["UNSUBSCRIBE", k("a")],
        ["SET", k("x"), "2"],
        ["UNSUBSCRIBE"],
        ["GET", k("x")],
    ]:
        connection.send_command(*words)
        try:
            answer = connection.read_response(**({"push_request": True} if s.protocol == 3 else {}))
        except s.lib.ResponseError as error:
            answer = str(error)
        s.see(" ".join(words), answer)
        if words == ["MULTI"] and answer == b"OK":
            connection.send_command("DISCARD")
            connection.read_response()
    connection.disconnect()
    s.equal(r.ping(), True)


def monitor(s):
    r, k = s.client(), s.key
    with s.client().monitor() as m:
        heard = []

        def listen():
            for command in m.listen():
                heard.append(command["command"])
                if k("last") in command["command"]:
                    return

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        r.set(k("a"), "with space and \"quotes\"")
        r.get(k("a"))
        r.get(k("last"))
        thread.join(20)
        s.true(not thread.is_alive(), "MONITOR shows the commands of others")
    s.see("MONITOR", [c for c in heard if k("") in c])


SCENARIOS = [publish_subscribe, fan_out, sharded, while_subscribed, monitor]
