//! What is between nodes: who reaches whom, and what is on its way. An order may come late, after a newer one, or
//! twice; its answer may be lost; what a node tells of itself may be older than what it has told since.

use super::Sim;
use super::agents::Answer;
use super::bugs::Bug;
use model::command::AgentCommand;
use model::observation::NodeObservation;
use model::{NodeUid, ShardUid};
use rand::Rng;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// After so long a node gives a heartbeat up that is not answered, and sends the next (`client::internode`).
const HEARTBEAT_WITHIN: Duration = Duration::from_secs(3);
/// A node that has nothing new to tell says so once in this time.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(1);

/// An order, as the primary node that sent it knows it again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ordered {
    /// Who ordered, and in which term of his.
    pub(super) by: NodeUid,
    pub(super) term: u64,
    pub(super) number: u64,
    /// Whose agent.
    pub(super) node: NodeUid,
    pub(super) shard: ShardUid,
    pub(super) removal: bool,
}

#[derive(Debug)]
pub(super) enum Message {
    Order(Ordered, Box<AgentCommand>),
    /// `None`: there is no answer, and whoever ordered notices it.
    Answer(Ordered, Option<Box<Answer>>),
    Heartbeat {
        to: NodeUid,
        seen: Box<NodeObservation>,
        number: u64,
    },
}

#[derive(Debug, Default)]
pub(super) struct Network {
    under_way: Vec<(Instant, u64, Message)>,
    sent: u64,
    /// The newest heartbeat that each node has of each other.
    heard: BTreeMap<(NodeUid, NodeUid), u64>,
    /// Whether messages are late, lost and doubled.
    pub(super) stormy: bool,
}

impl Network {
    /// In some worlds messages are late from the beginning on.
    pub(super) fn of(seed: u64) -> Self {
        Self {
            stormy: matches!(seed % 4, 1 | 2),
            ..Self::default()
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.sent += 1;
        self.sent
    }

    pub(super) fn send(&mut self, due: Instant, message: Message) {
        let number = self.number();
        self.under_way.push((due, number, message));
    }

    /// The next message whose time has come.
    fn next(&mut self, now: Instant) -> Option<Message> {
        let due = self.under_way.iter().enumerate();
        let due = due.filter(|(_, (at, _, _))| *at <= now);
        let (place, _) = due.min_by_key(|(_, (at, number, _))| (*at, *number))?;
        Some(self.under_way.swap_remove(place).2)
    }

    /// Whether no order and no answer is on its way.
    pub(super) fn is_quiet(&self) -> bool {
        let mut messages = self.under_way.iter();
        messages.all(|(_, _, message)| matches!(message, Message::Heartbeat { .. }))
    }
}

impl Sim {
    /// How long a message takes.
    fn delay(&mut self) -> Duration {
        let late = self.network.stormy && self.rng.random_ratio(1, 5);
        let ms = match (self.network.stormy, late) {
            (_, true) => self.rng.random_range(300..6_000),
            (true, false) => self.rng.random_range(0..400),
            (false, false) => self.rng.random_range(0..40),
        };
        Duration::from_millis(ms)
    }

    /// Sends an order to an agent.
    pub(super) fn send_order(&mut self, ordered: Ordered, command: AgentCommand) {
        let due = self.clock + self.delay();
        if self.network.stormy && self.rng.random_ratio(1, 12) {
            let again = self.clock + self.delay();
            let twin = Message::Order(ordered, Box::new(command.clone()));
            self.network.send(again, twin);
        }
        let command = Box::new(command);
        self.network.send(due, Message::Order(ordered, command));
    }

    /// What has come arrives.
    pub(super) fn deliver(&mut self) {
        while let Some(message) = self.network.next(self.clock) {
            match message {
                Message::Order(ordered, command) => self.order_comes(ordered, command),
                Message::Answer(ordered, answer) => self.answer_comes(ordered, answer),
                Message::Heartbeat { to, seen, number } => self.heartbeat_comes(to, *seen, number),
            }
        }
    }

    fn order_comes(&mut self, ordered: Ordered, command: Box<AgentCommand>) {
        let Ordered { by, node, .. } = ordered;
        if let Some(until) = self.nodes[&node].stopped {
            return self.network.send(until, Message::Order(ordered, command));
        }
        if self.nodes[&node].is_away() || !self.reaches(by, node) {
            if !self.calm && self.rng.random() {
                // Its bytes are sent again and again.
                let due = self.clock + Duration::from_secs(2);
                self.network.send(due, Message::Order(ordered, command));
            } else {
                self.no_answer(ordered);
            }
            return;
        }
        let word = command_name(&command);
        let answer = self.obey(node, ordered.shard, *command);
        self.note(format!(
            "node:{node} is ordered by node:{by} to {word} redis:{}: {}",
            ordered.shard,
            told(&answer)
        ));
        if self.network.stormy && self.rng.random_ratio(1, 12) {
            self.no_answer(ordered);
        } else {
            let due = self.clock + self.delay();
            self.network
                .send(due, Message::Answer(ordered, Some(Box::new(answer))));
        }
    }

    /// Whoever ordered notices after a while that there is no answer.
    fn no_answer(&mut self, ordered: Ordered) {
        let after = self.rng.random_range(100..4_000);
        let due = self.clock + Duration::from_millis(after);
        self.network.send(due, Message::Answer(ordered, None));
    }

    fn answer_comes(&mut self, ordered: Ordered, answer: Option<Box<Answer>>) {
        if let Some(until) = self.nodes[&ordered.by].stopped {
            return self.network.send(until, Message::Answer(ordered, answer));
        }
        let reached = self.reaches(ordered.node, ordered.by);
        let answer = answer.filter(|_| reached);
        self.take_in(ordered, answer.map(|answer| *answer));
    }

    fn heartbeat_comes(&mut self, to: NodeUid, seen: NodeObservation, number: u64) {
        let from = seen.node;
        if let Some(until) = self.nodes[&to].stopped {
            let seen = Box::new(seen);
            return self
                .network
                .send(until, Message::Heartbeat { to, seen, number });
        }
        if self.nodes[&to].is_away() || !self.reaches(from, to) {
            return;
        }
        let newest = self.network.heard.entry((to, from)).or_default();
        if number < *newest {
            self.note(format!(
                "node:{to} hears of node:{from} what is older than what it knows"
            ));
        } else {
            *newest = number;
        }
        self.hear(to, seen);
        let leads = self.nodes[&to].leads.is_some();
        let clock = self.clock;
        let answered = self.reaches(to, from);
        let sender = self.node(from);
        if answered && sender.beat_under_way.is_some_and(|(of, _)| of == number) {
            sender.beat_under_way = None;
            if leads {
                sender.observed.led(to, clock);
            }
        }
    }

    /// How often a heartbeat comes again, late.
    fn twins(&mut self) -> u32 {
        match self.bug {
            Some(Bug::OldHeartbeats) if !self.calm => 4,
            _ => u32::from(self.network.stormy && self.rng.random_ratio(1, 8)),
        }
    }

    /// Nodes tell of themselves.
    pub(super) fn heartbeats(&mut self) {
        for uid in super::all_nodes() {
            let node = &self.nodes[&uid];
            if node.is_away() {
                continue;
            }
            let Some(to) = node.knows else {
                continue;
            };
            let passed = |at: Instant| self.clock.saturating_duration_since(at);
            let waits = node
                .beat_under_way
                .is_some_and(|(_, sent)| passed(sent) < HEARTBEAT_WITHIN);
            let due = node.beat.is_none_or(|at| passed(at) >= HEARTBEAT_EVERY);
            // What is news is told at once.
            if waits || !(due || self.calm || self.rng.random_ratio(2, 3)) {
                continue;
            }
            let number = self.network.number();
            let mut seen = self.observe(uid);
            if self.bug != Some(Bug::OldHeartbeats) {
                seen.host.uptime = self.clock.duration_since(self.began).as_secs();
            }
            let clock = self.clock;
            let node = self.node(uid);
            node.beat = Some(clock);
            if to == uid {
                self.hear(uid, seen);
                continue;
            }
            // One whose connection ends is given up at once, and may arrive all the same.
            let ends = self.network.stormy && self.rng.random_ratio(1, 4);
            self.node(uid).beat_under_way = (!ends).then_some((number, clock));
            let due = clock + self.delay();
            let seen = Box::new(seen);
            for _ in 0..self.twins() {
                let late = clock + Duration::from_millis(self.rng.random_range(1_000..5_000));
                let seen = seen.clone();
                self.network
                    .send(late, Message::Heartbeat { to, seen, number });
            }
            self.network
                .send(due, Message::Heartbeat { to, seen, number });
        }
    }
}

fn command_name(command: &AgentCommand) -> &'static str {
    match command {
        AgentCommand::EnsureEngine(_) => "start",
        AgentCommand::MakePrimary { .. } => "make primary",
        AgentCommand::Configure { .. } => "configure",
        AgentCommand::Follow { .. } => "have follow",
        AgentCommand::Promote { .. } => "promote",
        AgentCommand::Keep { .. } => "have promise",
        AgentCommand::PrepareEpoch { .. } => "prepare",
        AgentCommand::HandOver { .. } => "have hand over",
        AgentCommand::PressAcks { .. } => "press",
        AgentCommand::TakeOver { .. } => "have take over",
        AgentCommand::SettleMove { .. } => "settle",
        AgentCommand::AbortHandOver { .. } => "abort",
        AgentCommand::KillEngine { .. } => "end",
        AgentCommand::SetAside { .. } => "set aside",
        AgentCommand::RemoveEngine { .. } => "remove",
    }
}

pub(super) fn told(answer: &Answer) -> String {
    match answer {
        Ok(_) => "done".to_owned(),
        Err(refusal) => refusal.to_string(),
    }
}
