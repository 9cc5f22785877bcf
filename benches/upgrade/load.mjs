// Traffic with node-redis while nodes are upgraded: load.mjs CONNECTIONS COMMANDS-A-SECOND ENDPOINT...
//
// Says `connected` when all connections are open. Runs until its standard input ends, then checks what it wrote, and
// prints one line of JSON. MODULES names the folder with the library.
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";

const { createClient } = createRequire(`${process.env.MODULES}/package.json`)("redis");
const [connections, rate, ...endpoints] = process.argv.slice(2);

// As in load.py.
const KEYS = 200;
const APPENDS = 10;
const SUBSCRIBERS = 3;
const MESSAGE_MS = 10;

const load = {
  commands: 0, errors: 0, dropped: 0, lost: 0, doubled: 0,
  messages: 0, messages_lost: 0, messages_doubled: 0, first_error: null,
};
let [end, longest, sent] = [false, 0, 0];

const failed = (error) => {
  load.first_error ??= `${error.name}: ${error.message}`;
};

async function open(endpoint) {
  const [host, port] = endpoint.split(":");
  // Nothing is tried again: what goes wrong is to be seen.
  const socket = { host, port: Number(port), reconnectStrategy: false, connectTimeout: 60_000 };
  const client = createClient({ socket, disableOfflineQueue: true });
  client.on("error", (error) => {
    load.dropped += 1;
    failed(error);
  });
  await client.connect();
  return client;
}

async function ask(client, ...words) {
  const began = performance.now();
  try {
    const answer = await client.sendCommand(words.map(String));
    load.commands += 1;
    longest = Math.max(longest, performance.now() - began);
    return answer;
  } catch (error) {
    load.errors += 1;
    failed(error);
    return undefined;
  }
}

// One that was closed by the server throws if it is closed again, and the rest would not be counted.
function close(client) {
  if (client.isOpen) client.destroy();
}

function check(expected, found) {
  if (expected !== undefined && found !== undefined && Number(found) !== expected) load.lost += 1;
}

async function writer(number, client) {
  const me = await ask(client, "CLIENT", "ID");
  const written = new Map();
  let appended = 0;
  for (let turn = 1; !end; turn += 1) {
    const key = `node:${number}:${turn % KEYS}`;
    if (await ask(client, "SET", key, turn)) written.set(key, turn);
    if (turn % APPENDS === 0) {
      appended += 1;
      await ask(client, "RPUSH", `node:list:${number}`, appended);
    } else {
      const other = `node:${number}:${(turn * 37) % KEYS}`;
      check(written.get(other), await ask(client, "GET", other));
    }
    await sleep((2_000 * Number(connections)) / Number(rate));
  }
  for (const [key, value] of written) check(value, await ask(client, "GET", key));
  const values = (await ask(client, "LRANGE", `node:list:${number}`, 0, -1)) ?? [];
  const seen = new Set(values.map(Number));
  for (let value = 1; value <= appended; value += 1) if (!seen.has(value)) load.lost += 1;
  load.doubled += values.length - seen.size;
  await ask(client, "DEL", `node:list:${number}`);
  // A connection keeps its id when its proxy is replaced.
  if ((await ask(client, "CLIENT", "ID")) !== me) load.dropped += 1;
  close(client);
}

async function publisher(endpoint) {
  const client = await open(endpoint);
  while (!end) {
    sent += 1;
    await ask(client, "PUBLISH", "node:messages", sent);
    await sleep(MESSAGE_MS);
  }
  close(client);
}

async function subscriber(endpoint) {
  const client = await open(endpoint);
  const state = { last: 0, client };
  await client.subscribe("node:messages", (text) => {
    const number = Number(text);
    load.messages += 1;
    if (state.last && number <= state.last) load.messages_doubled += 1;
    else if (state.last) load.messages_lost += number - state.last - 1;
    state.last = Math.max(state.last, number);
  });
  return state;
}

const at = (number) => endpoints[number % endpoints.length];
const subscribers = await Promise.all(Array.from({ length: SUBSCRIBERS }, (_, number) => subscriber(at(number))));
// One after the other: opening them all at once would be a load of its own.
const clients = [];
for (let number = 0; number < Number(connections); number += 1) clients.push(await open(at(number)));
console.log("connected");
const writers = clients.map((client, number) => writer(number, client));
writers.push(publisher(endpoints.at(-1)));
process.stdin.resume();
await new Promise((resolve) => process.stdin.on("end", resolve));
end = true;
await Promise.all(writers);
for (let tries = 0; tries < 40 && subscribers.some((one) => one.last < sent); tries += 1) await sleep(50);
for (const one of subscribers) {
  load.messages_lost += Math.max(sent - one.last, 0);
  close(one.client);
}
console.log(JSON.stringify({ ...load, longest_ms: Math.round(longest * 10) / 10 }));
process.exit(0);
