// A program with BullMQ: job queues made of scripts, streams, blocking pops and lists.
//
// usage: queues.mjs {node_redis|ioredis} GIVEN RESULTS
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { read, run, soon, until } from "./runner.mjs";

const [library, given, results] = process.argv.slice(2);
const require = createRequire(`${process.env.MODULES}/package.json`);
const { FlowProducer, Queue, QueueEvents, Worker } = require("bullmq");

// BullMQ warns of a policy that deletes keys with a time to live: it keeps no such keys that it needs.
const warn = console.warn;
console.warn = (text, ...more) => { if (!/Eviction policy/.test(text)) warn(text, ...more); };

// A queue's name has no colons.
const named = (key) => key("q").replaceAll(":", "-");
const numbers = (count) => Array.from({ length: count }, (_, n) => n);

// What a scenario gets: makes queues, workers and the like, and ends them in the order that BullMQ wants.
async function open({ host, port, password, shards }) {
  const made = [];
  const clients = [];
  const connection = async () => {
    if (library === "ioredis") return { host, port, password: password ?? undefined, maxRetriesPerRequest: null };
    const client = require("redis").createClient({ socket: { host, port }, password: password ?? undefined, RESP: 2 });
    client.on("error", () => {});
    await client.connect();
    clients.push(client);
    return client;
  };
  // All keys of a queue must be on one shard: that is what a prefix with braces does.
  const prefix = shards > 1 ? "{bull}" : "bull";
  const keep = async (thing) => {
    made.push(thing);
    // What is told beside the promises shows in them, too.
    thing.on("error", () => {});
    await soon("it is ready", thing.waitUntilReady());
    return thing;
  };
  return {
    shards,
    queue: async (name, more) => keep(new Queue(name, { connection: await connection(), prefix, ...more })),
    events: async (name) => keep(new QueueEvents(name, { connection: await connection(), prefix })),
    worker: async (name, work, more) => keep(new Worker(name, work, { connection: await connection(), prefix, ...more })),
    flows: async () => {
      const flows = new FlowProducer({ connection: await connection(), prefix });
      made.push(flows);
      return flows;
    },
    end: async () => {
      for (const thing of made.reverse()) await soon("it ends", thing.close());
      for (const client of clients) if (client.isOpen) client.destroy();
    },
  };
}

const scenarios = {
  async jobs_and_their_results(bull, key) {
    const name = named(key);
    const [queue, events] = [await bull.queue(name), await bull.events(name)];
    const work = async (job) => {
      await job.updateProgress(50);
      return { square: job.data.n ** 2 };
    };
    for (const _ of numbers(2)) await bull.worker(name, work, { concurrency: 10 });
    const jobs = await queue.addBulk(numbers(100).map((n) => ({ name: "square", data: { n } })));
    const found = await soon("all jobs are done", Promise.all(jobs.map((job) => job.waitUntilFinished(events))));
    assert.deepEqual(found.map((result) => result.square), numbers(100).map((n) => n ** 2));
    const counts = await queue.getJobCounts();
    assert.deepEqual([counts.completed, counts.failed, counts.waiting, counts.active], [100, 0, 0, 0]);
    assert.equal((await queue.getJob(jobs[7].id)).progress, 50);
    assert.equal((await queue.clean(0, 1000, "completed")).length, 100);
  },
  async events_in_order(bull, key) {
    const name = named(key);
    const [queue, events] = [await bull.queue(name), await bull.events(name)];
    const seen = [];
    for (const event of ["added", "active", "progress", "completed"]) {
      events.on(event, ({ jobId }) => seen.push(`${event} ${jobId}`));
    }
    await bull.worker(name, async (job) => job.updateProgress(1));
    const job = await queue.add("one", {});
    await until("it is completed", () => seen.includes(`completed ${job.id}`));
    assert.deepEqual(seen, ["added", "active", "progress", "completed"].map((event) => `${event} ${job.id}`));
  },
  async delayed(bull, key) {
    const name = named(key);
    const [queue, events] = [await bull.queue(name), await bull.events(name)];
    const order = [];
    const later = await queue.add("later", {}, { delay: 200 });
    const sooner = await queue.add("sooner", {}, { delay: 100 });
    assert.equal(await queue.getDelayedCount(), 2);
    const never = await queue.add("never", {}, { delay: 3_600_000 });
    await bull.worker(name, async (job) => { order.push(job.name); });
    await soon("they are done", Promise.all([later, sooner].map((job) => job.waitUntilFinished(events))));
    assert.deepEqual(order, ["sooner", "later"]);
    await never.promote();
    await soon("it is promoted", never.waitUntilFinished(events));
    assert.deepEqual(order, ["sooner", "later", "never"]);
  },
  async repeated(bull, key) {
    const name = named(key);
    const queue = await bull.queue(name);
    let done = 0;
    await bull.worker(name, async () => { done += 1; });
    await queue.upsertJobScheduler("often", { every: 50 }, { name: "tick", data: {} });
    await until("three are done", () => done >= 3);
    assert.equal((await queue.getJobSchedulers()).length, 1);
    assert.equal(await queue.removeJobScheduler("often"), true);
    await queue.upsertJobScheduler("at new year", { pattern: "0 0 0 1 1 *" }, { name: "cron" });
    assert.equal(await queue.getDelayedCount(), 1);
  },
  async by_priority(bull, key) {
    const name = named(key);
    const [queue, events] = [await bull.queue(name), await bull.events(name)];
    const jobs = await queue.addBulk([3, 1, 2, 1, 5].map((priority, n) => ({ name: `${priority}:${n}`, opts: { priority } })));
    const order = [];
    await bull.worker(name, async (job) => { order.push(job.name); });
    await soon("all jobs are done", Promise.all(jobs.map((job) => job.waitUntilFinished(events))));
    assert.deepEqual(order, ["1:1", "1:3", "2:2", "3:0", "5:4"]);
  },
  async stalled(bull, key) {
    const name = named(key);
    const [queue, events] = [await bull.queue(name), await bull.events(name)];
    let hangs;
    const took = new Promise((resolve) => { hangs = resolve; });
    // A worker that takes a job, keeps its lock for a moment only and never comes back.
    const dead = await bull.worker(name, () => new Promise(() => hangs()), {
      lockDuration: 100, skipLockRenewal: true, skipStalledCheck: true,
    });
    const job = await queue.add("work", {});
    await soon("it is taken", took);
    await soon("it is gone", dead.close(true));
    const stalled = new Promise((resolve) => { events.once("stalled", ({ jobId }) => resolve(jobId)); });
    await bull.worker(name, async () => "by another", { stalledInterval: 100 });
    assert.equal(await soon("another does it", job.waitUntilFinished(events)), "by another");
    assert.equal(await soon("it was told", stalled), job.id);
  },
  async tried_again(bull, key) {
    const name = named(key);
    const [queue, events] = [await bull.queue(name), await bull.events(name)];
    await bull.worker(name, async (job) => {
      if (job.attemptsMade < job.data.failures) throw new Error(`attempt ${job.attemptsMade}`);
      return "at last";
    });
    const more = { attempts: 3, backoff: { type: "fixed", delay: 10 } };
    const good = await queue.add("good", { failures: 2 }, more);
    assert.equal(await soon("it is done", good.waitUntilFinished(events)), "at last");
    const bad = await queue.add("bad", { failures: 9 }, more);
    await assert.rejects(soon("it is given up", bad.waitUntilFinished(events)), /attempt 2/);
    assert.equal((await queue.getFailed()).length, 1);
    assert.equal((await queue.getJob(bad.id)).stacktrace.length, 3);
    await bad.remove();
    assert.equal(await queue.getFailedCount(), 0);
  },
  async rate_limit(bull, key) {
    const name = named(key);
    const queue = await bull.queue(name);
    let done = 0;
    await bull.worker(name, async () => { done += 1; }, {
      limiter: { max: 3, duration: 3_600_000 }, maximumRateLimitDelay: 20,
    });
    await queue.addBulk(numbers(5).map((n) => ({ name: `${n}`, data: {} })));
    await until("the limit is reached", async () => (await queue.getRateLimitTtl(3)) > 0);
    await until("three are done", () => done === 3);
    assert.equal(await queue.getWaitingCount(), 2);
    await queue.removeRateLimitKey();
    await until("all are done", () => done === 5);
  },
  async children_first(bull, key) {
    const name = named(key);
    const events = await bull.events(name);
    const flows = await bull.flows();
    await bull.worker(name, async (job) => {
      if (job.name !== "sum") return job.data.n;
      return Object.values(await job.getChildrenValues()).reduce((one, other) => one + other, 0);
    }, { concurrency: 4 });
    const tree = await flows.add({
      name: "sum", queueName: name, data: {},
      children: numbers(10).map((n) => ({ name: "part", queueName: name, data: { n } })),
    });
    assert.equal(await soon("the sum is made", tree.job.waitUntilFinished(events)), 45);
  },
  async once_only(bull, key) {
    const name = named(key);
    const [queue, events] = [await bull.queue(name), await bull.events(name)];
    const added = await Promise.all(numbers(20).map((n) => queue.add("one", { n }, { deduplication: { id: "the one" } })));
    assert.equal(new Set(added.map((job) => job.id)).size, 1);
    const same = await Promise.all(numbers(20).map(() => queue.add("id", {}, { jobId: "mine" })));
    assert.deepEqual(new Set(same.map((job) => job.id)), new Set(["mine"]));
    assert.equal(await queue.getWaitingCount(), 2);
    await bull.worker(name, async () => "done");
    await soon("it is done", same[0].waitUntilFinished(events));
  },
  async paused_and_emptied(bull, key) {
    const name = named(key);
    const [queue, events] = [await bull.queue(name), await bull.events(name)];
    await bull.worker(name, async () => "done");
    await queue.pause();
    const job = await queue.add("waits", {});
    assert.equal(await queue.isPaused(), true);
    assert.equal(await job.getState(), "waiting");
    await queue.resume();
    await soon("it is done", job.waitUntilFinished(events));
    await queue.pause();
    await queue.addBulk(numbers(50).map((n) => ({ name: `${n}`, data: {} })));
    await queue.drain();
    assert.equal(await queue.getWaitingCount(), 0);
    await queue.obliterate({ force: true });
    assert.deepEqual(Object.values(await queue.getJobCounts()).filter((count) => count > 0), []);
  },
  async workers_that_come_and_go(bull, key) {
    const name = named(key);
    const queue = await bull.queue(name);
    const done = new Set();
    const work = async (job) => { done.add(job.data.n); };
    // Each ends while it waits for a job; none may take one with it.
    for (const n of numbers(5)) {
      const worker = await bull.worker(name, work);
      await queue.add("one", { n });
      await until(`job ${n} is done`, () => done.has(n));
      await soon("the worker ends", worker.close());
      await queue.add("while nobody waits", { n: n + 100 });
    }
    await bull.worker(name, work);
    await until("all are done", () => done.size === 10);
    assert.equal(await queue.getFailedCount(), 0);
  },
  // Without braces the keys of a queue are on several shards: refused by name, at once.
  async without_braces(bull, key) {
    const name = named(key);
    const queue = await bull.queue(name, { prefix: "bull" });
    const added = queue.add("one", {});
    if (bull.shards === 1) await added;
    else await assert.rejects(soon("it is refused", added), /CROSSSLOT/);
  },
};

await run(read(given), results, scenarios, open);
