//! Several engines without any proxy: the load generator finds the engine of each slot itself. What the same
//! engines do on this machine where nothing stands between.

use super::client::Client;
use super::engine::Engine;
use std::time::Duration;

const SLOTS: usize = 16_384;
const BEGIN: Duration = Duration::from_secs(30);

/// Gives each engine its part of the slots, and waits until all of them know it.
pub(crate) fn join(engines: &[Engine]) -> anyhow::Result<()> {
    let (meeting, mut first) = (engines[0].tcp, 0);
    let (ip, port) = (meeting.ip().to_string(), meeting.port().to_string());
    for (number, engine) in engines.iter().enumerate() {
        let next = SLOTS * (number + 1) / engines.len();
        let mut client = Client::connect(engine.tcp)?;
        let slots = [first.to_string(), (next - 1).to_string()];
        client.order(&["CLUSTER", "ADDSLOTSRANGE", &slots[0], &slots[1]])?;
        if engine.tcp != meeting {
            client.order(&["CLUSTER", "MEET", &ip, &port])?;
        }
        first = next;
    }
    testkit::wait::until("every engine knows all slots", BEGIN, || {
        let all = engines.iter().map(|engine| engine.tcp);
        all.map(|engine| Client::connect(engine)?.tell(&["CLUSTER", "INFO"]))
            .find_map(|told| match told {
                Ok(told) if told.contains("cluster_state:ok") && knows(&told, engines.len()) => {
                    None
                }
                Ok(told) => Some(told),
                Err(error) => Some(format!("{error:#}")),
            })
            .map_or(Ok(()), Err)
    })
}

fn knows(told: &str, engines: usize) -> bool {
    let known = format!("cluster_known_nodes:{engines}");
    told.lines().any(|line| line.trim() == known)
}
