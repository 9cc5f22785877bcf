// Clients that know the database's name alone: node-redis' createSentinel, ioredis' `sentinels`.
//
// usage: finding.mjs GIVEN RESULTS
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { read, run, soon } from "./runner.mjs";

const [given, results] = process.argv.slice(2);
const require = createRequire(`${process.env.MODULES}/package.json`);
const PORT = 8001;
const input = read(given);
// A place names no database; its port does.
const targets = new Map(input.targets.map((target) => [target.port, target]));

async function nodeRedis({ target }, key, RESP) {
  const { createSentinel } = require("redis");
  const sentinel = createSentinel({
    name: target.name,
    sentinelRootNodes: target.endpoint.map((host) => ({ host, port: PORT })),
    nodeClientOptions: { password: target.password ?? undefined, RESP },
    sentinelClientOptions: { RESP },
    RESP,
  });
  sentinel.on("error", () => {});
  await soon("connect", sentinel.connect());
  assert.equal(String(await soon("SET", sentinel.set(key("a"), "found"))), "OK");
  assert.equal(String(await soon("GET", sentinel.get(key("a")))), "found");
  await Promise.all(Array.from({ length: 20 }, (_, n) => sentinel.set(key(`n${n}`), String(n))));
  await soon("destroy", Promise.resolve(sentinel.destroy()));
}

async function ioredis({ target }, key, more) {
  const Redis = require("ioredis");
  const client = new Redis({
    sentinels: target.endpoint.map((host) => ({ host, port: PORT })),
    name: target.name,
    password: target.password ?? undefined,
    lazyConnect: true,
    ...more,
  });
  client.on("error", () => {});
  await soon("connect", client.connect());
  assert.equal(await soon("SET", client.set(key("a"), "found")), "OK");
  assert.equal(await soon("GET", client.get(key("a"))), "found");
  client.disconnect();
}

const scenarios = {
  node_redis: (place, key) => nodeRedis(place, key, 2),
  node_redis_resp3: (place, key) => nodeRedis(place, key, 3),
  ioredis: (place, key) => ioredis(place, key, {}),
  // It subscribes to +switch-master at every node.
  ioredis_that_follows: (place, key) => ioredis(place, key, { failoverDetector: true }),
  ioredis_past_a_dead_sentinel: ({ target }, key) =>
    ioredis({ target: { ...target, endpoint: ["127.0.0.77", ...target.endpoint] } }, key, {}),
};

await run(input, results, scenarios, async ({ port }) => ({ target: targets.get(port), end: () => {} }));
