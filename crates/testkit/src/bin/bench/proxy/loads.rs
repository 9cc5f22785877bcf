//! The loads and their goals.

/// Name of the measurement that is not a load.
pub(crate) const IDLE: &str = "idle";
/// Keys of an MGET.
pub(crate) const MGET_KEYS: usize = 100;
/// The script of an EVAL.
pub(crate) const SCRIPT: &str = "return redis.call('GET', KEYS[1])";

/// A command that valkey-benchmark sends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Op {
    Set,
    Get,
    Mget,
    Eval,
}

impl Op {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Set => "SET",
            Self::Get => "GET",
            Self::Mget => "MGET",
            Self::Eval => "EVAL",
        }
    }
}

/// A goal for ours ÷ another target, at least so much.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    None,
    /// Against the direct engine.
    Direct(f64),
    /// Against ours with one shard.
    OneShard(f64),
}

#[derive(Clone, Debug)]
pub(crate) struct Load {
    /// For `--only`.
    pub(crate) name: &'static str,
    pub(crate) shown: &'static str,
    pub(crate) clients: u32,
    pub(crate) pipeline: u32,
    /// Length of a value.
    pub(crate) bytes: usize,
    pub(crate) keys: u32,
    /// Requests of one run of one command.
    pub(crate) requests: u64,
    pub(crate) shards: u16,
    pub(crate) ops: &'static [Op],
    /// Load generator on CPU 0, everything else on CPU 1.
    pub(crate) pinned: bool,
    pub(crate) goal: Goal,
    /// Most CPU seconds of the proxy per million requests.
    pub(crate) cpu_goal: Option<f64>,
}

const BOTH: &[Op] = &[Op::Set, Op::Get];

impl Load {
    const fn new(name: &'static str, shown: &'static str, clients: u32, pipeline: u32) -> Self {
        Self {
            name,
            shown,
            clients,
            pipeline,
            bytes: 64,
            keys: 100_000,
            requests: 300_000,
            shards: 1,
            ops: BOTH,
            pinned: false,
            goal: Goal::None,
            cpu_goal: None,
        }
    }
}

/// Every load, in the order of the tables. A run of the direct engine takes one to three seconds, a
/// third of that if it is to be quick.
pub(crate) fn all(quick: bool) -> Vec<Load> {
    let mut loads = one_shard();
    loads.extend(scripts());
    loads.extend(four_shards());
    if quick {
        for load in &mut loads {
            load.requests /= 3;
        }
    }
    loads
}

fn one_shard() -> Vec<Load> {
    vec![
        Load {
            goal: Goal::Direct(1.10),
            ..Load::new("c500", "500 clients, no pipeline", 500, 1)
        },
        Load {
            goal: Goal::Direct(1.00),
            cpu_goal: Some(4.2),
            ..Load::new("p1", "50 clients, no pipeline", 50, 1)
        },
        Load {
            requests: 2_000_000,
            goal: Goal::Direct(1.10),
            cpu_goal: Some(0.42),
            ..Load::new("p16", "50 clients, pipeline 16", 50, 16)
        },
        Load {
            requests: 2_400_000,
            goal: Goal::Direct(1.03),
            cpu_goal: Some(0.20),
            ..Load::new("p64", "50 clients, pipeline 64", 50, 64)
        },
        Load {
            bytes: 1024,
            goal: Goal::Direct(0.95),
            ..Load::new("kib", "50 clients, 1 KiB values", 50, 1)
        },
        Load {
            requests: 40_000,
            goal: Goal::Direct(0.95),
            ..Load::new("c1", "1 client, no pipeline", 1, 1)
        },
        Load {
            bytes: 100 * 1024,
            keys: 1_000,
            requests: 20_000,
            ..Load::new("big", "50 clients, 100 KiB values", 50, 1)
        },
        Load {
            pinned: true,
            ..Load::new("p1-pinned", "50 clients, no pipeline, pinned", 50, 1)
        },
        Load {
            pinned: true,
            ..Load::new("c500-pinned", "500 clients, no pipeline, pinned", 500, 1)
        },
    ]
}

fn scripts() -> Vec<Load> {
    let script = |load: Load| Load {
        ops: &[Op::Eval],
        ..load
    };
    vec![
        script(Load::new(
            "script-p1",
            "50 clients, EVAL of a GET, no pipeline",
            50,
            1,
        )),
        script(Load::new(
            "script-p16",
            "50 clients, EVAL of a GET, pipeline 16",
            50,
            16,
        )),
    ]
}

fn four_shards() -> Vec<Load> {
    let four = |load: Load| Load {
        shards: 4,
        goal: Goal::OneShard(1.00),
        ..load
    };
    vec![
        four(Load::new(
            "shards4-p1",
            "4 shards, 50 clients, no pipeline",
            50,
            1,
        )),
        four(Load {
            requests: 2_000_000,
            ..Load::new("shards4-p16", "4 shards, 50 clients, pipeline 16", 50, 16)
        }),
        Load {
            requests: 30_000,
            ops: &[Op::Mget],
            goal: Goal::None,
            ..four(Load::new(
                "mget",
                "4 shards, 50 clients, MGET of 100 keys",
                50,
                1,
            ))
        },
    ]
}

/// What `--only` takes.
pub(crate) fn names() -> String {
    let mut names: Vec<&str> = all(true).iter().map(|load| load.name).collect();
    names.push(IDLE);
    names.join(", ")
}
