//! The upgrade of all nodes by one command.

use super::observation;
use jiff::Timestamp;
use model::rest::{UpgradePause, UpgradeRunInfo, UpgradeTurn};
use model::upgrade::run::{Direction, NodeTurn, RunState, TurnState, UpgradeRun};
use model::view::ClusterView;

/// The run that is under way, or the last one.
#[must_use]
pub fn run(view: &ClusterView, now: Timestamp) -> Option<UpgradeRunInfo> {
    let run = view.upgrade.run.as_ref()?;
    let (state, paused) = match &run.state {
        RunState::Running => ("running", None),
        RunState::Done => ("done", None),
        RunState::Paused {
            by,
            code,
            evidence,
            since,
        } => (
            "paused",
            Some(UpgradePause {
                by: by.clone(),
                code: Some(*code),
                evidence: evidence.clone(),
                remedy: code.remedy().to_owned(),
                since: since.to_string(),
            }),
        ),
    };
    let mut turns: Vec<&NodeTurn> = run.nodes.iter().collect();
    turns.sort_by_key(|turn| (turn.began.is_none(), turn.began, turn.node));
    let nodes: Vec<UpgradeTurn> = turns
        .into_iter()
        .map(|turn| node(view, run, turn, now))
        .collect();
    Some(UpgradeRunInfo {
        id: run.id.clone(),
        state: state.to_owned(),
        direction: match run.direction {
            Direction::Forward => "forward",
            Direction::Back => "back",
        }
        .to_owned(),
        from: run.from.clone(),
        to: run.target.version.clone(),
        began: run.began.to_string(),
        ended: run.ended.map(|at| at.to_string()),
        canary: run.canary,
        canary_soak_seconds: run.canary_soak_seconds,
        soak_seconds: run.soak_seconds,
        paused,
        waiting_on: waiting_on(view, run, now),
        bundle: run.bundle.digest.clone(),
        connections: nodes.iter().map(|node| node.connections).sum(),
        commands_per_second: nodes.iter().map(|node| node.commands_per_second).sum(),
        nodes,
    })
}

fn waiting_on(view: &ClusterView, run: &UpgradeRun, now: Timestamp) -> Vec<String> {
    let mut waits: Vec<String> = run.waiting_on.iter().cloned().collect();
    if run.state != RunState::Running || run.direction != Direction::Forward {
        return waits;
    }
    for turn in run.nodes.iter().filter(|t| t.state == TurnState::Waiting) {
        let seen = observation(view, turn.node);
        let told = seen.map(|seen| &seen.upgrade.turn);
        if told.is_some_and(|told| told.staged.as_ref() != Some(&run.bundle.digest)) {
            let error = told.and_then(|told| told.stage_error.clone());
            waits.push(match error {
                Some(error) => format!("node:{}: {error}", turn.node),
                None => format!("node:{} fetches the bundle", turn.node),
            });
        }
    }
    let done = run.nodes.iter().filter(|t| t.state == TurnState::Done);
    let soak = if done.clone().count() == 1 {
        run.canary_soak_seconds
    } else {
        run.soak_seconds
    };
    if let Some(ended) = done.filter_map(|turn| turn.ended).max() {
        let left = i64::from(soak) - (now.as_second() - ended.as_second());
        let more = run.nodes.iter().any(|t| t.state == TurnState::Waiting);
        if left > 0 && more && run.in_flight().is_none() {
            waits.push(format!("the node before is watched for {left} s more"));
        }
    }
    waits
}

fn node(view: &ClusterView, run: &UpgradeRun, turn: &NodeTurn, now: Timestamp) -> UpgradeTurn {
    let seen = observation(view, turn.node);
    let told = seen.map(|seen| &seen.upgrade.turn);
    let proxy = seen.and_then(|seen| seen.proxy.as_ref());
    let percent = match told {
        Some(told) if told.staged.as_ref() == Some(&run.bundle.digest) => 100,
        Some(told) => told.fetched.saturating_mul(99) / run.bundle.size.max(1),
        None => 0,
    };
    let until = turn.ended.unwrap_or(now);
    let seconds = turn
        .began
        .map(|began| u64::try_from(until.as_second() - began.as_second()).unwrap_or(0));
    let per_second = proxy.map(|proxy| &proxy.per_second);
    UpgradeTurn {
        uid: turn.node,
        addr: view
            .nodes
            .iter()
            .find(|node| node.uid == turn.node)
            .map(|node| node.address.clone())
            .unwrap_or_default(),
        state: turn.state.as_str().to_owned(),
        software_version: seen
            .map(|seen| seen.software_version.clone())
            .unwrap_or_default(),
        step: told
            .and_then(|told| told.step.clone())
            .filter(|_| turn.state.is_in_flight()),
        bundle_percent: u32::try_from(percent.min(100)).unwrap_or(100),
        attempt: turn.attempt,
        began: turn.began.map(|at| at.to_string()),
        seconds,
        clients_kept: turn.clients.map(|clients| clients.kept),
        clients_of: turn.clients.map(|clients| clients.of),
        client_errors: turn.clients.map(|clients| clients.errors),
        longest_pause_us: turn.clients.map(|clients| clients.longest_pause_us),
        connections: proxy.map_or(0, |proxy| proxy.connections),
        commands_per_second: per_second.map_or(0, |n| n.read_req + n.write_req + n.other_req),
    }
}
