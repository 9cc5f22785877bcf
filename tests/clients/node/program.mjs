// A program: one library, one protocol version. Runs every scenario on each target through the
// endpoint.
//
// usage: program.mjs {node_redis|ioredis} {2|3} GIVEN RESULTS
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { native } from "./native.mjs";
import { read, run } from "./runner.mjs";

const [library, protocol, given, results] = process.argv.slice(2);
const require = createRequire(`${process.env.MODULES}/package.json`);

// One way to use both libraries: `call` sends a command as it is and gives its answer.
const adapters = {
  node_redis: async ({ host, port, password }) => {
    const { createClient } = require("redis");
    const make = async () => {
      const client = createClient({ socket: { host, port }, password: password ?? undefined, RESP: Number(protocol) });
      client.on("error", () => {});
      await client.connect();
      return client;
    };
    const wrap = (client) => ({
      call: (...words) => client.sendCommand(words.map(String)),
      multi: async (commands) => {
        const multi = client.multi();
        for (const words of commands) multi.addCommand(words.map(String));
        return multi.exec();
      },
      subscribe: (channel, listener) => client.subscribe(channel, (message) => listener(message)),
      another: async () => wrap(await make()),
      native: client,
      end: () => client.destroy(),
    });
    return wrap(await make());
  },
  ioredis: async ({ host, port, password }) => {
    const Redis = require("ioredis");
    const make = async () => {
      const client = new Redis({ host, port, password: password ?? undefined, lazyConnect: true, enableAutoPipelining: true });
      client.on("error", () => {});
      await client.connect();
      return client;
    };
    const wrap = (client) => ({
      call: (...words) => client.call(...words.map(String)),
      multi: async (commands) => {
        const answers = await client.multi(commands.map(([name, ...words]) => [name.toLowerCase(), ...words.map(String)])).exec();
        return answers.map(([error, answer]) => { if (error) throw error; return answer; });
      },
      subscribe: async (channel, listener) => {
        client.on("message", (_, message) => listener(message));
        await client.subscribe(channel);
      },
      another: async () => wrap(await make()),
      native: client,
      end: () => client.disconnect(),
    });
    return wrap(await make());
  },
};

const text = (answer) => (Buffer.isBuffer(answer) ? answer.toString() : answer);

const scenarios = {
  async values(redis, key) {
    assert.equal(await redis.call("SET", key("a"), "1"), "OK");
    assert.equal(Number(await redis.call("INCR", key("a"))), 2);
    assert.equal(Number(await redis.call("HSET", key("h"), "f", "v", "g", "w")), 2);
    assert.equal(text(await redis.call("HGET", key("h"), "g")), "w");
    await redis.call("RPUSH", key("l"), ...Array.from({ length: 100 }, (_, n) => n));
    assert.deepEqual((await redis.call("LRANGE", key("l"), "0", "-1")).map(Number), Array.from({ length: 100 }, (_, n) => n));
    assert.equal(await redis.call("GET", key("nothing")), null);
  },
  async a_thousand_promises_in_order(redis, key) {
    const answers = await Promise.all(
      Array.from({ length: 1000 }, (_, n) => redis.call("SET", key(`p${n}`), n).then(() => redis.call("GET", key(`p${n}`)))),
    );
    answers.forEach((answer, n) => assert.equal(Number(answer), n));
    const counts = await Promise.all(Array.from({ length: 1000 }, () => redis.call("INCR", key("count"))));
    counts.forEach((count, n) => assert.equal(Number(count), n + 1));
  },
  async transactions(redis, key) {
    const answers = await redis.multi([["SET", key("t"), "5"], ["INCR", key("t")], ["GET", key("t")]]);
    assert.deepEqual(answers.map(String), ["OK", "6", "6"]);
  },
  async a_watched_counter_by_eight(redis, key) {
    await redis.call("SET", key("watched"), 0);
    const one = async () => {
      const mine = await redis.another();
      for (let done = 0; done < 10; ) {
        await mine.call("WATCH", key("watched"));
        const now = Number(await mine.call("GET", key("watched")));
        await mine.call("MULTI");
        await mine.call("SET", key("watched"), now + 1);
        if ((await mine.call("EXEC")) !== null) done += 1;
      }
      mine.end();
    };
    await Promise.all(Array.from({ length: 8 }, one));
    assert.equal(Number(await redis.call("GET", key("watched"))), 80);
  },
  async blocking(redis, key) {
    const waiting = await redis.another();
    const popped = waiting.call("BLPOP", key("queue"), "20");
    assert.equal(text(await redis.call("PING")), "PONG");
    await redis.call("RPUSH", key("queue"), "job");
    assert.deepEqual((await popped).map(text), [key("queue"), "job"]);
    waiting.end();
  },
  async messages(redis, key) {
    const listening = await redis.another();
    const seen = [];
    let enough;
    const all = new Promise((resolve) => { enough = resolve; });
    await listening.subscribe(key("news"), (message) => { seen.push(message); if (seen.length === 100) enough(); });
    for (let n = 0; n < 100; n += 1) assert.equal(Number(await redis.call("PUBLISH", key("news"), n)), 1);
    await all;
    assert.deepEqual(seen.map(Number), Array.from({ length: 100 }, (_, n) => n));
    listening.end();
  },
  async scripts(redis, key) {
    const script = "return redis.call('INCRBY', KEYS[1], ARGV[1])";
    assert.equal(Number(await redis.call("EVAL", script, "1", key("s"), "7")), 7);
    const sha = text(await redis.call("SCRIPT", "LOAD", script));
    assert.equal(Number(await redis.call("EVALSHA", sha, "1", key("s"), "1")), 8);
    await assert.rejects(redis.call("EVALSHA", "0".repeat(40), "0"), /NOSCRIPT/);
  },
  async streams(redis, key) {
    await redis.call("XGROUP", "CREATE", key("x"), "g", "$", "MKSTREAM");
    for (let n = 0; n < 20; n += 1) await redis.call("XADD", key("x"), "*", "n", n);
    await redis.call("XREADGROUP", "GROUP", "g", "me", "COUNT", "20", "STREAMS", key("x"), ">");
    assert.equal(Number((await redis.call("XPENDING", key("x"), "g"))[0]), 20);
  },
  async large_values(redis, key) {
    const value = "x".repeat(20_000_000);
    assert.equal(await redis.call("SET", key("large"), value), "OK");
    assert.equal(text(await redis.call("GET", key("large"))).length, value.length);
  },
  async errors(redis, key) {
    await redis.call("SET", key("string"), "x");
    await assert.rejects(redis.call("LPUSH", key("string"), "y"), /WRONGTYPE/);
    await assert.rejects(redis.call("SHUTDOWN"), /.+/);
    assert.equal(text(await redis.call("PING")), "PONG");
  },
};

for (const [name, scenario] of Object.entries(native[library])) {
  scenarios[name] = (redis, key) => scenario(redis.native, key);
}

await run(read(given), results, scenarios, adapters[library]);
