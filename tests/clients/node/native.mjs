// What programs do with each library in its own words.
import assert from "node:assert/strict";
import { until } from "./runner.mjs";

const numbers = (count) => Array.from({ length: count }, (_, n) => n);

const node_redis = {
  async own_words(client, key) {
    await client.hSet(key("h"), { a: "1", b: "2" });
    assert.deepEqual({ ...(await client.hGetAll(key("h"))) }, { a: "1", b: "2" });
    await client.zAdd(key("z"), numbers(5).map((n) => ({ score: n + 0.5, value: `m${n}` })));
    assert.deepEqual(await client.zRangeWithScores(key("z"), 0, 1), [
      { value: "m0", score: 0.5 },
      { value: "m1", score: 1.5 },
    ]);
    assert.equal(await client.zScore(key("z"), "m4"), 4.5);
    await client.sAdd(key("s"), numbers(500).map((n) => `m${n}`));
    const found = [];
    for await (const part of client.sScanIterator(key("s"))) found.push(...part);
    assert.equal(new Set(found).size, 500);
    assert.equal(await client.set(key("n"), "1", { NX: true, EX: 100 }), "OK");
    assert.equal(await client.set(key("n"), "2", { NX: true }), null);
    assert.ok((await client.ttl(key("n"))) > 90);
    await assert.rejects(client.lPush(key("n"), "x"), /WRONGTYPE/);
    assert.equal(await client.clientSetName("node"), "OK");
    assert.equal(await client.clientGetName(), "node");
  },
  async streams_in_own_words(client, key) {
    await client.xGroupCreate(key("x"), "g", "0", { MKSTREAM: true });
    for (const n of numbers(10)) await client.xAdd(key("x"), `${n + 1}-0`, { n: String(n) });
    const read = await client.xReadGroup("g", "me", { key: key("x"), id: ">" }, { COUNT: 10 });
    // A map in version 3 of the protocol, a list in version 2.
    const messages = Array.isArray(read) ? read[0].messages : Object.values(read)[0];
    assert.deepEqual(messages.map((m) => m.id ?? m[0]), numbers(10).map((n) => `${n + 1}-0`));
    assert.equal(await client.xAck(key("x"), "g", ["1-0", "2-0"]), 2);
    assert.equal((await client.xPending(key("x"), "g")).pending, 8);
  },
  async mixed_ways_in_order(client, key) {
    // Sent in one go; the endpoint sends them on different ways, and answers in this order.
    await client.rPush(key("list"), numbers(100).map(String));
    const answers = await Promise.all(
      numbers(100).flatMap((n) => [
        client.set(key("n"), String(n)),
        client.echo(`e${n}`),
        client.blPop(key("list"), 1),
        client.eval("return ARGV[1]", { arguments: [String(n)] }),
        client.multi().get(key("n")).ping().exec(),
        client.get(key("n")),
      ]),
    );
    for (const n of numbers(100)) {
      const [set, echo, popped, evaluated, multi, get] = answers.slice(6 * n, 6 * n + 6);
      assert.deepEqual([set, echo, popped.element, evaluated, [...multi], get], ["OK", `e${n}`, String(n), String(n), [String(n), "PONG"], String(n)]);
    }
  },
  async watch_in_own_words(client, key) {
    const other = client.duplicate();
    await other.connect();
    await client.watch(key("w"));
    await other.set(key("w"), "changed");
    await assert.rejects(client.multi().set(key("w"), "mine").exec(), /watched/i);
    assert.equal(await client.get(key("w")), "changed");
    other.destroy();
  },
  async patterns_by_a_duplicate(client, key) {
    const listening = client.duplicate();
    await listening.connect();
    const seen = [];
    await listening.pSubscribe(key("*"), (message, channel) => seen.push([channel, message]));
    for (const n of numbers(50)) assert.equal(await client.publish(key(`c${n}`), String(n)), 1);
    await until("all messages", () => seen.length === 50);
    assert.deepEqual(seen, numbers(50).map((n) => [key(`c${n}`), String(n)]));
    await listening.pUnsubscribe();
    assert.equal(String(await listening.ping()), "PONG");
    listening.destroy();
  },
  async comes_back(client, key) {
    const victim = client.duplicate();
    victim.on("error", () => {});
    await victim.connect();
    const listening = client.duplicate();
    listening.on("error", () => {});
    await listening.connect();
    const seen = [];
    const subscriber = await listening.clientId();
    await listening.subscribe(key("c"), (message) => seen.push(message));
    const first = await victim.clientId();
    assert.equal(await client.sendCommand(["CLIENT", "KILL", "ID", String(first)]), 1);
    // By its number too: other programs have subscribers at the same endpoint.
    assert.equal(await client.sendCommand(["CLIENT", "KILL", "TYPE", "pubsub", "ID", String(subscriber)]), 1);
    await until("it is connected again", async () => (await victim.clientId().catch(() => first)) !== first);
    await until("it is subscribed again", async () => {
      await client.publish(key("c"), "after");
      return seen.length > 0;
    });
    victim.destroy();
    listening.destroy();
  },
};

const ioredis = {
  async own_words(client, key) {
    await client.hset(key("h"), { a: 1, b: 2 });
    assert.deepEqual(await client.hgetall(key("h")), { a: "1", b: "2" });
    const odd = Buffer.from(numbers(256));
    await client.set(key("odd"), odd);
    assert.deepEqual(await client.getBuffer(key("odd")), odd);
    await client.sadd(key("s"), numbers(500));
    const found = [];
    for await (const part of client.sscanStream(key("s"))) found.push(...part);
    assert.equal(new Set(found).size, 500);
    assert.equal(await client.set(key("n"), 1, "EX", 100, "NX"), "OK");
    assert.equal(await client.set(key("n"), 2, "NX"), null);
    await assert.rejects(client.lpush(key("n"), "x"), /WRONGTYPE/);
  },
  async pipelines(client, key) {
    const pipeline = client.pipeline();
    for (const n of numbers(2000)) pipeline.set(key(`${n}`), n).get(key(`${n}`));
    pipeline.lpush(key("0"), "x");
    const answers = await pipeline.exec();
    for (const n of numbers(2000)) assert.deepEqual(answers[2 * n + 1], [null, String(n)]);
    assert.match(answers.at(-1)[0].message, /WRONGTYPE/);
    const multi = await client.multi().set(key("m"), 1).incr(key("m")).lpush(key("m"), "x").exec();
    assert.deepEqual([multi[0][1], multi[1][1], multi[2][0].message.slice(0, 9)], ["OK", 2, "WRONGTYPE"]);
    await assert.rejects(client.multi().set(key("m")).exec(), /EXECABORT/);
  },
  async mixed_ways_in_order(client, key) {
    await client.rpush(key("list"), numbers(100));
    const pipeline = client.pipeline();
    for (const n of numbers(100)) pipeline.set(key("n"), n).blpop(key("list"), 1).eval("return ARGV[1]", 0, n).get(key("n"));
    const answers = (await pipeline.exec()).map(([error, answer]) => { if (error) throw error; return answer; });
    for (const n of numbers(100)) {
      assert.deepEqual(answers.slice(4 * n, 4 * n + 4), ["OK", [key("list"), String(n)], String(n), String(n)]);
    }
  },
  async scripts_by_name(client, key) {
    // Sent by its sum first, whole when the engine does not know it.
    client.defineCommand("addTo", { numberOfKeys: 1, lua: `-- ${key("own")}\nreturn redis.call('incrby', KEYS[1], ARGV[1])` });
    assert.deepEqual(await Promise.all(numbers(50).map(() => client.addTo(key("n"), 2))), numbers(50).map((n) => 2 * n + 2));
  },
  async patterns_by_a_duplicate(client, key) {
    const listening = client.duplicate();
    await listening.connect();
    const seen = [];
    listening.on("pmessage", (_, channel, message) => seen.push([channel, message]));
    await listening.psubscribe(key("*"));
    for (const n of numbers(50)) assert.equal(await client.publish(key(`c${n}`), n), 1);
    await until("all messages", () => seen.length === 50);
    assert.deepEqual(seen, numbers(50).map((n) => [key(`c${n}`), String(n)]));
    await assert.rejects(listening.get("x"), /subscriber mode/);
    listening.disconnect();
  },
  async comes_back(client, key) {
    const listening = client.duplicate();
    listening.on("error", () => {});
    await listening.connect();
    const seen = [];
    listening.on("message", (_, message) => seen.push(message));
    const subscriber = await listening.call("CLIENT", "ID");
    await listening.subscribe(key("c"));
    // By its number too: other programs have subscribers at the same endpoint.
    assert.equal(await client.call("CLIENT", "KILL", "TYPE", "pubsub", "ID", subscriber), 1);
    await until("it is subscribed again", async () => {
      await client.publish(key("c"), "after");
      return seen.length > 0;
    });
    listening.disconnect();
  },
};

export const native = { node_redis, ioredis };
