//! The library's synchronous half.

use crate::side::{Side, fails};
use crate::{On, Scenario};
use anyhow::ensure;
use redis::streams::{StreamReadOptions, StreamReadReply};
use redis::{
    Commands as _, Connection, ErrorKind, RedisResult, Script, ServerErrorKind, Value, cmd, pipe,
};
use std::collections::{BTreeSet, HashMap};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "values",
        run: values,
        on: On::Both,
    },
    Scenario {
        name: "pipelines",
        run: pipelines,
        on: On::Both,
    },
    Scenario {
        name: "transactions",
        run: transactions,
        on: On::Both,
    },
    Scenario {
        name: "a_watched_counter_by_eight",
        run: watched,
        on: On::Both,
    },
    Scenario {
        name: "scripts",
        run: scripts,
        on: On::Both,
    },
    Scenario {
        name: "scans",
        run: scans,
        on: On::Both,
    },
    Scenario {
        name: "streams",
        run: streams,
        on: On::Both,
    },
    Scenario {
        name: "blocking",
        run: blocking,
        on: On::Both,
    },
    Scenario {
        name: "large_values",
        run: large_values,
        on: On::Both,
    },
    Scenario {
        name: "keys_on_all_shards",
        run: keys_on_all_shards,
        on: On::Both,
    },
    Scenario {
        name: "refused",
        run: refused,
        on: On::Endpoint,
    },
];

fn values(side: &Side) -> anyhow::Result<()> {
    let mut redis = side.connection()?;
    let key = |name| side.key(name);
    redis.set::<_, _, ()>(key("a"), 41)?;
    ensure!(redis.incr::<_, _, i64>(key("a"), 1)? == 42);
    redis.hset_multiple::<_, _, _, ()>(key("h"), &[("f", "v"), ("g", "w")])?;
    let map: HashMap<String, String> = redis.hgetall(key("h"))?;
    ensure!(map.len() == 2 && map["g"] == "w", "{map:?}");
    redis.zadd_multiple::<_, _, _, ()>(key("z"), &[(1.5, "one"), (f64::INFINITY, "two")])?;
    let scores: Vec<(String, f64)> = redis.zrange_withscores(key("z"), 0, -1)?;
    ensure!(
        scores == [("one".to_owned(), 1.5), ("two".to_owned(), f64::INFINITY)],
        "{scores:?}"
    );
    redis.sadd::<_, _, ()>(key("s"), &["x", "y"])?;
    let set: BTreeSet<String> = redis.smembers(key("s"))?;
    ensure!(set.len() == 2);
    for words in [
        vec!["HGETALL", "h"],
        vec!["ZRANGE", "z", "0", "-1", "WITHSCORES"],
        vec!["SISMEMBER", "s", "x"],
        vec!["GET", "none"],
        vec!["TYPE", "z"],
        vec!["OBJECT", "ENCODING", "z"],
        vec!["LPUSH", "h", "x"],
        vec!["ZINCRBY", "z", "0.25", "one"],
        vec!["GEOADD", "geo", "13.361389", "38.115556", "Palermo"],
        vec!["GEOPOS", "geo", "Palermo", "none"],
    ] {
        let place = if words[0] == "OBJECT" { 2 } else { 1 };
        let mut command = redis::Cmd::new();
        for (at, word) in words.iter().enumerate() {
            command.arg(if at == place {
                key(word)
            } else {
                (*word).to_owned()
            });
        }
        let answer: RedisResult<Value> = command.query(&mut redis);
        side.see(&words.join(" "), answer.map_err(|error| error.to_string()))
            .ok();
    }
    let gone: Option<String> = redis.get(key("none"))?;
    ensure!(gone.is_none());
    Ok(())
}

fn pipelines(side: &Side) -> anyhow::Result<()> {
    let mut redis = side.connection()?;
    let mut long = pipe();
    for n in 0..2_000 {
        long.set(side.key(&format!("{n}")), n).ignore();
        long.get(side.key(&format!("{n}")));
    }
    let answers: Vec<i64> = long.query(&mut redis)?;
    ensure!(
        answers == (0..2_000).collect::<Vec<i64>>(),
        "answers are out of order"
    );
    // One command of a pipeline fails: the others are carried out.
    let failed: RedisResult<Vec<Value>> = pipe()
        .set(side.key("text"), "x")
        .lpush(side.key("text"), "y")
        .set(side.key("after"), "z")
        .query(&mut redis);
    fails(failed, "WRONGTYPE")?;
    ensure!(redis.get::<_, String>(side.key("after"))? == "z");
    ensure!(cmd("PING").query::<String>(&mut redis)? == "PONG");
    Ok(())
}

fn transactions(side: &Side) -> anyhow::Result<()> {
    let mut redis = side.connection()?;
    let key = side.key("t");
    let (set, value): (i64, String) = pipe()
        .atomic()
        .set(&key, 5)
        .ignore()
        .incr(&key, 1)
        .get(&key)
        .query(&mut redis)?;
    ensure!((set, value.as_str()) == (6, "6"));
    let aborted: RedisResult<Value> = pipe()
        .atomic()
        .set(&key, 1)
        .cmd("NOSUCHCOMMAND")
        .arg("x")
        .query(&mut redis);
    ensure!(aborted.is_err(), "{aborted:?}");
    ensure!(
        redis.get::<_, i64>(&key)? == 6,
        "an aborted transaction changed something"
    );
    // A key that was watched and changed by another: nothing is carried out.
    cmd("WATCH").arg(&key).exec(&mut redis)?;
    side.connection()?.set::<_, _, ()>(&key, "another's")?;
    let nothing: Option<Vec<Value>> = pipe().atomic().set(&key, "mine").query(&mut redis)?;
    ensure!(nothing.is_none(), "{nothing:?}");
    ensure!(redis.get::<_, String>(&key)? == "another's");
    Ok(())
}

/// The library's own loop, from eight threads.
fn watched(side: &Side) -> anyhow::Result<()> {
    let key = side.key("counter");
    side.connection()?.set::<_, _, ()>(&key, 0)?;
    let connections: RedisResult<Vec<Connection>> = (0..8).map(|_| side.connection()).collect();
    let work = |mut redis: Connection| -> RedisResult<()> {
        for _ in 0..10 {
            redis::transaction(&mut redis, &[&key], |redis, transaction| {
                let now: i64 = redis.get(&key)?;
                transaction
                    .set(&key, now + 1)
                    .ignore()
                    .get(&key)
                    .query::<Option<(i64,)>>(redis)
            })?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = connections?
            .into_iter()
            .map(|redis| scope.spawn(|| work(redis)))
            .collect();
        for thread in threads {
            match thread.join() {
                Ok(done) => done?,
                Err(_) => anyhow::bail!("a thread panicked"),
            }
        }
        anyhow::Ok(())
    })?;
    ensure!(side.connection()?.get::<_, i64>(&key)? == 80);
    Ok(())
}

fn scripts(side: &Side) -> anyhow::Result<()> {
    let mut redis = side.connection()?;
    // A text of its own, so that it is loaded now.
    let script = Script::new(&format!(
        "-- {}\nreturn redis.call('INCRBY', KEYS[1], ARGV[1])",
        side.key("")
    ));
    for round in 1..=3 {
        let sum: i64 = script.key(side.key("s")).arg(7).invoke(&mut redis)?;
        ensure!(sum == 7 * round);
    }
    let mut other = side.connection()?;
    ensure!(script.key(side.key("s")).arg(1).invoke::<i64>(&mut other)? == 22);
    let tables: Value =
        Script::new("return {1, {'two', {3}}, false, {ok = 'fine'}}").invoke(&mut redis)?;
    side.see("tables", tables);
    let error: RedisResult<Value> =
        Script::new("return redis.error_reply('MINE of my own')").invoke(&mut redis);
    ensure!(fails(error, "MINE")?.code() == Some("MINE"));
    let missing: RedisResult<Value> = cmd("EVALSHA").arg("0".repeat(40)).arg(0).query(&mut redis);
    ensure!(fails(missing, "")?.kind() == ErrorKind::Server(ServerErrorKind::NoScript));
    Ok(())
}

fn scans(side: &Side) -> anyhow::Result<()> {
    let mut redis = side.connection()?;
    let wanted: BTreeSet<String> = (0..500).map(|n| side.anywhere(&n.to_string())).collect();
    let mut fill = pipe();
    for key in &wanted {
        fill.set(key, "x").ignore();
    }
    fill.exec(&mut redis)?;
    let found: RedisResult<BTreeSet<String>> = redis.scan_match(side.anywhere("*"))?.collect();
    ensure!(found? == wanted);
    let fields: Vec<(String, i64)> = (0..300).map(|n| (format!("f{n}"), n)).collect();
    redis.hset_multiple::<_, _, _, ()>(side.key("h"), &fields)?;
    let found: RedisResult<BTreeSet<(String, i64)>> = redis.hscan(side.key("h"))?.collect();
    ensure!(found? == fields.into_iter().collect());
    Ok(())
}

fn streams(side: &Side) -> anyhow::Result<()> {
    let mut redis = side.connection()?;
    let key = side.key("x");
    redis.xgroup_create_mkstream::<_, _, _, ()>(&key, "g", "$")?;
    for n in 0..20 {
        redis.xadd::<_, _, _, _, ()>(&key, format!("1-{}", n + 1), &[("n", n)])?;
    }
    let options = StreamReadOptions::default()
        .group("g", "me")
        .count(20)
        .block(5_000);
    let read: StreamReadReply = redis.xread_options(&[&key], &[">"], &options)?;
    let ids: Vec<&String> = read.keys[0].ids.iter().map(|entry| &entry.id).collect();
    ensure!(ids.len() == 20 && ids[19] == "1-20", "{ids:?}");
    ensure!(redis.xack::<_, _, _, i64>(&key, "g", &ids)? == 20);
    let pending: Value = redis.xpending(&key, "g")?;
    side.see("XPENDING", pending);
    Ok(())
}

fn blocking(side: &Side) -> anyhow::Result<()> {
    let (mut waiting, mut other) = (side.connection()?, side.connection()?);
    let key = side.key("queue");
    let popped = std::thread::scope(|scope| {
        let popped = scope.spawn(|| waiting.blpop::<_, (String, String)>(&key, 15.0));
        other.rpush::<_, _, ()>(&key, "job")?;
        popped
            .join()
            .map_err(|_| anyhow::anyhow!("the thread panicked"))?
            .map_err(anyhow::Error::from)
    })?;
    ensure!(popped == (key.clone(), "job".to_owned()));
    let nothing: Option<(String, String)> = waiting.brpop(&key, 0.05)?;
    ensure!(nothing.is_none());
    ensure!(cmd("PING").query::<String>(&mut waiting)? == "PONG");
    Ok(())
}

fn large_values(side: &Side) -> anyhow::Result<()> {
    let mut redis = side.connection()?;
    let value = vec![b'x'; 20_000_000];
    redis.set::<_, _, ()>(side.key("large"), &value)?;
    let back: Vec<u8> = redis.get(side.key("large"))?;
    ensure!(back == value);
    redis.del::<_, ()>(side.key("large"))?;
    Ok(())
}

/// Commands that are taken apart where there are several shards.
fn keys_on_all_shards(side: &Side) -> anyhow::Result<()> {
    let mut redis = side.connection()?;
    let pairs: Vec<(String, u64)> = (0..200)
        .map(|n| (side.anywhere(&n.to_string()), n))
        .collect();
    let keys: Vec<&String> = pairs.iter().map(|(key, _)| key).collect();
    redis.mset::<_, _, ()>(&pairs)?;
    ensure!(redis.mget::<_, Vec<u64>>(&keys)? == (0..200).collect::<Vec<u64>>());
    ensure!(redis.exists::<_, i64>(&keys)? == 200);
    let (values, gone): (Vec<Option<u64>>, i64) =
        pipe().mget(&keys[..3]).del(&keys).query(&mut redis)?;
    ensure!(values == [Some(0), Some(1), Some(2)] && gone == 200);
    ensure!(redis.mget::<_, Vec<Option<u64>>>(&keys[..2])? == [None, None]);
    Ok(())
}

/// What would break the platform says so and breaks nothing.
fn refused(side: &Side) -> anyhow::Result<()> {
    let mut redis = side.connection()?;
    for words in [
        "SHUTDOWN NOSAVE",
        "CONFIG SET maxmemory 1",
        "REPLICAOF NO ONE",
        "DEBUG SLEEP 0",
        "CLUSTER RESET",
    ] {
        let mut command = redis::Cmd::new();
        words.split(' ').for_each(|word| {
            command.arg(word);
        });
        fails(command.query::<Value>(&mut redis), "not available")?;
        ensure!(cmd("PING").query::<String>(&mut redis)? == "PONG");
    }
    Ok(())
}
