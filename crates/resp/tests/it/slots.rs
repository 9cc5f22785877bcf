//! Hash slots as `CLUSTER KEYSLOT` of real engines says them.

use crate::engine::Engine;
use crate::generator::Chance;
use resp::slot::key_slot;
use resp::value::Value;

/// Keys of up to 40 bytes, many of them braces.
fn keys() -> Vec<Vec<u8>> {
    let mut chance = Chance(5);
    (0..3_000)
        .map(|_| {
            let length = chance.below(40);
            (0..length)
                .map(|_| match chance.below(6) {
                    0 => b'{',
                    1 => b'}',
                    _ => chance.below(256) as u8,
                })
                .collect()
        })
        .collect()
}

fn compare(name: &str) {
    let mut engine = Engine::start(name);
    let keys = keys();
    let asked: Vec<_> = keys
        .iter()
        .map(|key| vec![b"CLUSTER".to_vec(), b"KEYSLOT".to_vec(), key.clone()])
        .collect();
    for (key, answer) in keys.iter().zip(engine.ask(&asked)) {
        assert_eq!(answer, Value::Integer(key_slot(key).into()), "{key:?}");
    }
}

#[test]
fn of_valkey_9_1() {
    compare("valkey-9.1.2");
}

#[test]
fn of_redis_6_2() {
    compare("redis-6.2.14");
}
