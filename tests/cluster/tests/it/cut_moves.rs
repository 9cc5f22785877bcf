//! What if a process is killed at a line of a move? Every process that takes part, at every line that is
//! written in `controller/src/switchover/execute.rs`: whatever it is, the move is completed or undone, clients of
//! other processes see no error, and the next move works.

use crate::load::{Writer, go_on, go_on_by, stop, value, writer};
use crate::replicas::{create, masters};
use crate::story::{primary, seen, served, shards, shards_ok};
use model::documents::OperationStatus;
use model::rest::Actions;
use std::process::Child;
use std::time::Duration;
use testkit::cluster::Cluster;
use testkit::wait;

const PORT: u16 = 12_000;

/// The lines, in their order.
const LINES: [&str; 7] = [
    "prepared",
    "stored",
    "held",
    "handed",
    "released",
    "taken",
    "committed",
];

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    /// `cnm_exec` of the primary node, which carries the move out.
    Primary,
    /// `cnm_exec` of the node that the role leaves.
    OldAgent,
    /// `cnm_exec` of the node that it goes to.
    NewAgent,
    /// The same; it is started again only when clients of the other proxies are served.
    OldAgentAway,
    NewAgentAway,
    /// The proxy of the node that the role leaves.
    OldProxy,
    /// The proxy of the node that it goes to.
    NewProxy,
    OldEngine,
    NewEngine,
}

const OTHERS: [Victim; 8] = [
    Victim::OldAgent,
    Victim::NewAgent,
    Victim::OldAgentAway,
    Victim::NewAgentAway,
    Victim::OldProxy,
    Victim::NewProxy,
    Victim::OldEngine,
    Victim::NewEngine,
];

/// Each of them at a line, and one of them at each line: where its end has the most to spoil.
const ONCE_EACH: [(&str, Victim); 8] = [
    ("prepared", Victim::OldAgent),
    ("stored", Victim::OldProxy),
    ("held", Victim::OldAgentAway),
    ("held", Victim::OldEngine),
    ("handed", Victim::NewAgentAway),
    ("released", Victim::NewProxy),
    ("taken", Victim::NewAgent),
    ("committed", Victim::NewEngine),
];

/// Where the copies are, and the node without one.
struct Places {
    master: u64,
    old: usize,
    new: usize,
    other: usize,
}

fn places(cluster: &Cluster) -> Places {
    let node = |uid: u64| usize::try_from(uid).unwrap() - 1;
    let all = shards(cluster, 0);
    let master = all.iter().find(|shard| shard.role == "master").unwrap();
    let replica = all.iter().find(|shard| shard.role == "slave").unwrap();
    let (old, new) = (node(master.node_uid.0), node(replica.node_uid.0));
    Places {
        master: master.uid.0,
        old,
        new,
        other: 3 - old - new,
    }
}

fn pid(cluster: &Cluster, places: &Places, victim: Victim) -> u32 {
    let daemon = |node: usize| cluster.nodes[node].pid("cnm_exec").unwrap();
    let engine = |role: &str| {
        let all = shards(cluster, 0);
        let shard = all.into_iter().find(|shard| shard.role == role);
        shard.and_then(|shard| shard.pid).unwrap()
    };
    match victim {
        Victim::Primary => daemon(places.other),
        Victim::OldAgent | Victim::OldAgentAway => daemon(places.old),
        Victim::NewAgent | Victim::NewAgentAway => daemon(places.new),
        Victim::OldProxy => cluster.nodes[places.old].proxy_server().unwrap(),
        Victim::NewProxy => cluster.nodes[places.new].proxy_server().unwrap(),
        Victim::OldEngine => engine("master"),
        Victim::NewEngine => engine("slave"),
    }
}

/// The killed daemon is started again, as supervisord would.
fn start_again(cluster: &mut Cluster, places: &Places, victim: Victim) {
    let (node, daemon) = match victim {
        Victim::Primary => (places.other, "cnm_exec"),
        Victim::OldAgent | Victim::OldAgentAway => (places.old, "cnm_exec"),
        Victim::NewAgent | Victim::NewAgentAway => (places.new, "cnm_exec"),
        Victim::OldProxy => (places.old, "dmcproxy"),
        Victim::NewProxy => (places.new, "dmcproxy"),
        Victim::OldEngine | Victim::NewEngine => return,
    };
    cluster.nodes[node].kill(daemon).unwrap();
    cluster.nodes[node].start_daemon(daemon).unwrap();
    cluster.nodes[node].ready().unwrap();
}

/// The node without a copy carries moves out.
fn primary_node_is(cluster: &Cluster, wanted: usize) {
    let uid = (wanted + 1).to_string();
    wait::until(
        "the primary node is the one",
        Duration::from_secs(30),
        || {
            if primary(cluster) == wanted {
                return Ok(());
            }
            let output = cluster.nodes[0].rladmin(&["cluster", "master", "set", &uid]);
            Err(output.map_or_else(|error| error.to_string(), |output| seen(&output)))
        },
    )
    .unwrap();
}

/// One master, every shard is well, and nothing is under way.
fn whole(cluster: &Cluster) {
    cluster.settled().unwrap();
    shards_ok(cluster);
    at_rest(cluster, 0);
    assert_eq!(masters(cluster).len(), 1);
}

/// Nothing is under way.
fn at_rest(cluster: &Cluster, node: usize) {
    wait::until("no move", Duration::from_secs(30), || {
        let actions: Actions = cluster.nodes[node]
            .get("/v1/actions")
            .map_err(|e| e.to_string())?;
        let running = actions.state_machines.iter().any(|action| {
            matches!(
                action.status,
                Some(OperationStatus::Pending | OperationStatus::Active | OperationStatus::Paused)
            )
        });
        match running {
            false => Ok(()),
            true => Err(format!("{actions:?}")),
        }
    })
    .unwrap();
}

/// A move with clients, at whose line somebody was killed.
struct Begun {
    places: Places,
    writers: Vec<Writer>,
    command: Child,
}

/// Orders a move while clients write; `None`: it did not come to the line. A primary node that is new to it may
/// have to hear of the engines first, and on a busy machine another node may have become the primary node.
fn begin(cluster: &Cluster, line: &str, victim: Victim, attempt: u32) -> Option<Begun> {
    whole(cluster);
    let places = places(cluster);
    primary_node_is(cluster, places.other);
    // Clients of a killed proxy lose their connections, and those of one that hears of nothing wait: none are
    // asked for here.
    let nodes = match victim {
        Victim::OldProxy | Victim::OldAgentAway => [places.new, places.other],
        Victim::NewProxy | Victim::NewAgentAway => [places.old, places.other],
        _ => [places.old, places.new],
    };
    let key = |number| format!("{line}:{victim:?}:{attempt}:{number}");
    let writers: Vec<Writer> = (0..4)
        .map(|number| writer(cluster, nodes[number % 2], PORT, key(number)))
        .collect();
    go_on(&writers, "they write");
    let node = &cluster.nodes[places.other];
    let file = node.cut_file();
    std::fs::write(&file, format!("{line} {}", pid(cluster, &places, victim))).unwrap();
    let shard = format!("redis:{}", places.master);
    let mut command = node
        .rladmin_started(&["failover", "shard", &shard])
        .unwrap();
    wait::until("the line is reached", Duration::from_secs(30), || {
        match (file.exists(), command.try_wait().unwrap()) {
            (true, None) => Err("the move has not come there".to_owned()),
            _ => Ok(()),
        }
    })
    .unwrap();
    if file.exists() {
        std::fs::remove_file(&file).unwrap();
        println!("{}", seen(&command.wait_with_output().unwrap()));
        stop(writers);
        return None;
    }
    Some(Begun {
        places,
        writers,
        command,
    })
}

fn cut(cluster: &mut Cluster, line: &str, victim: Victim) {
    let begun = (0..5).find_map(|attempt| begin(cluster, line, victim, attempt));
    let Begun {
        places,
        writers,
        command,
    } = begun.expect("a move comes to the line");
    if matches!(victim, Victim::OldAgentAway | Victim::NewAgentAway) {
        // More than can have been written before the proxies held.
        go_on_by(&writers, 2_000, "they write while it is away");
    }
    start_again(cluster, &places, victim);
    // What it says depends on who lives; that it ends does not.
    println!("{}", seen(&command.wait_with_output().unwrap()));
    whole(cluster);
    go_on(&writers, "they write again");
    let mut connection = served(cluster, places.other, PORT);
    let engine = matches!(victim, Victim::OldEngine | Victim::NewEngine);
    for written in stop(writers) {
        let there = value(&mut connection, &written.key);
        if engine {
            assert!(written.errors.len() <= 2, "{line}, {victim:?}: {written:?}");
            assert!(
                (written.acknowledged..=written.sent).contains(&there),
                "{line}, {victim:?}: {there} of {written:?}"
            );
        } else {
            assert_eq!(written.errors, [""; 0], "{line}, {victim:?}");
            assert_eq!(there, written.acknowledged, "{line}, {victim:?}");
        }
        println!("{line}, {victim:?}: longest wait {:?}", written.worst);
    }
}

#[test]
fn the_primary_node_is_killed_at_each_line_of_a_move() {
    let mut cluster = Cluster::start(3).unwrap();
    create(&cluster, &[]);
    for line in LINES {
        cut(&mut cluster, line, Victim::Primary);
    }
}

#[test]
fn everybody_else_is_killed_at_a_line_and_somebody_at_each_line_of_a_move() {
    for line in LINES {
        assert!(
            ONCE_EACH.iter().any(|(at, _)| *at == line),
            "nobody at {line}"
        );
    }
    for victim in OTHERS {
        assert!(
            ONCE_EACH.iter().any(|(_, who)| *who == victim),
            "{victim:?} nowhere"
        );
    }
    let mut cluster = Cluster::start(3).unwrap();
    create(&cluster, &[]);
    for (line, victim) in ONCE_EACH {
        cut(&mut cluster, line, victim);
    }
}

/// A database has two failovers a minute: engines are killed at no more than one line of a cluster.
fn everybody_at(line: &str) {
    let mut cluster = Cluster::start(3).unwrap();
    create(&cluster, &[]);
    for victim in OTHERS {
        cut(&mut cluster, line, victim);
    }
}

/// Half a minute each: the soak runs them, and so does whoever changes moves.
macro_rules! everybody_at {
    ($($line:ident)*) => {
        mod everybody_at_each_line {
            $(
                #[test]
                #[ignore = "minutes: `cargo nextest run -p cluster-tests --run-ignored only everybody_at_each_line`"]
                fn $line() {
                    super::everybody_at(stringify!($line));
                }
            )*
        }
    };
}
everybody_at!(prepared stored held handed released taken committed);
