// Runs scenarios on each target through the endpoint, counts, and writes what driver.py reads.
//
// A program gives its scenarios by name, and `open`, which makes what a scenario gets from a place
// { host, port, password, shards }; what it made is ended with `end()`.
import { readFileSync, writeFileSync } from "node:fs";

// A scenario waits at most so long for what must come, milliseconds.
export const PATIENCE = 20_000;

// What driver.py wants of the program.
export function read(given) {
  return JSON.parse(readFileSync(given, "utf8"));
}

// A promise that fails after PATIENCE, and says what did not come.
export function soon(what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${PATIENCE / 1000} s`)), PATIENCE);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// Waits for a condition; gives what it gave.
export async function until(what, condition) {
  for (const end = Date.now() + PATIENCE; Date.now() < end;) {
    const found = await condition();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`${what}: not within ${PATIENCE / 1000} s`);
}

export async function run({ program, targets, scenarios: wanted, times }, results, scenarios, open) {
  const id = Math.random().toString(36).slice(2, 8);
  const counts = { passed: 0, failed: 0 };
  for (const target of targets) {
    const began = Date.now();
    let passed = 0;
    let failed = 0;
    for (const [name, scenario] of Object.entries(scenarios)) {
      if (wanted && !wanted.includes(name)) continue;
      const host = target.endpoint[passed % target.endpoint.length];
      const start = Date.now();
      try {
        const place = { host, port: target.port, password: target.password, shards: target.shards };
        const opened = await open(place);
        await scenario(opened, (suffix) => `${id}:${program}:${name}:${suffix}`);
        await opened.end();
        passed += 1;
      } catch (error) {
        failed += 1;
        console.log(`FAIL ${program} ${target.name} ${name}: ${error.stack}`);
      }
      if (times) console.log(`    ${name.padEnd(24)} ${((Date.now() - start) / 1000).toFixed(2)} s`);
    }
    counts.passed += passed;
    counts.failed += failed;
    const seconds = ((Date.now() - began) / 1000).toFixed(1);
    console.log(`${program.padEnd(18)} ${target.name.padEnd(11)} ${String(passed).padStart(3)} passed ${String(failed).padStart(3)} failed ${seconds.padStart(6)} s`);
  }
  writeFileSync(results, JSON.stringify(counts));
  process.exit(counts.failed ? 1 : 0);
}
