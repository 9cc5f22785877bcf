//! Subscriptions of a client.

use crate::finder::News;
use resp::value::Value;
use std::net::SocketAddr;

/// Most channels and patterns of a client.
const SUBSCRIPTIONS_MAX: usize = 64;
/// Longest channel or pattern, bytes.
const NAME_MAX: usize = 256;

/// A channel, or a pattern of channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `SUBSCRIBE`.
    Channel,
    /// `PSUBSCRIBE`.
    Pattern,
}

/// What a client subscribed to.
#[derive(Clone, Debug, Default)]
pub struct Channels {
    channels: Vec<Vec<u8>>,
    patterns: Vec<Vec<u8>>,
}

impl Channels {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.channels.len() + self.patterns.len()
    }

    fn of(&mut self, kind: Kind) -> &mut Vec<Vec<u8>> {
        match kind {
            Kind::Channel => &mut self.channels,
            Kind::Pattern => &mut self.patterns,
        }
    }

    /// Subscribes to one; what the client is told.
    pub fn subscribe(&mut self, kind: Kind, name: &[u8]) -> Value {
        if name.len() > NAME_MAX || self.count() >= SUBSCRIPTIONS_MAX {
            let text = format!(
                "ERR at most {SUBSCRIPTIONS_MAX} subscriptions of at most {NAME_MAX} bytes each"
            );
            return Value::Error(text.into_bytes());
        }
        let list = self.of(kind);
        if !list.iter().any(|known| known == name) {
            list.push(name.to_vec());
        }
        let word = match kind {
            Kind::Channel => "subscribe",
            Kind::Pattern => "psubscribe",
        };
        self.told(word, Value::Bulk(name.to_vec()))
    }

    /// Unsubscribes from some, or from all; what the client is told.
    pub fn unsubscribe(&mut self, kind: Kind, names: &[&[u8]]) -> Vec<Value> {
        let word = match kind {
            Kind::Channel => "unsubscribe",
            Kind::Pattern => "punsubscribe",
        };
        let all = self.of(kind).clone();
        let names: Vec<&[u8]> = if names.is_empty() {
            all.iter().map(Vec::as_slice).collect()
        } else {
            names.to_vec()
        };
        if names.is_empty() {
            return vec![self.told(word, Value::Null)];
        }
        let mut told = Vec::new();
        for name in names {
            self.of(kind).retain(|known| known != name);
            told.push(self.told(word, Value::Bulk(name.to_vec())));
        }
        told
    }

    fn told(&self, word: &str, name: Value) -> Value {
        let count = i64::try_from(self.count()).unwrap_or(i64::MAX);
        Value::Push(vec![Value::bulk(word), name, Value::Integer(count)])
    }

    /// The messages that a client gets of some news.
    #[must_use]
    pub fn messages(&self, news: &News) -> Vec<Value> {
        let (channel, text) = event(news);
        let mut messages = Vec::new();
        if self
            .channels
            .iter()
            .any(|known| known == channel.as_bytes())
        {
            messages.push(Value::Push(vec![
                Value::bulk("message"),
                Value::bulk(channel),
                Value::bulk(&text),
            ]));
        }
        for pattern in &self.patterns {
            if matches(pattern, channel.as_bytes()) {
                messages.push(Value::Push(vec![
                    Value::bulk("pmessage"),
                    Value::Bulk(pattern.clone()),
                    Value::bulk(channel),
                    Value::bulk(&text),
                ]));
            }
        }
        messages
    }
}

/// Channel and text of some news.
#[must_use]
pub fn event(news: &News) -> (&'static str, String) {
    let pair = |at: &SocketAddr| format!("{} {}", at.ip(), at.port());
    match news {
        News::Moved { name, from, to } => (
            "+switch-master",
            format!("{name} {} {}", pair(from), pair(to)),
        ),
        News::Lost { name, at } => ("+sdown", format!("master {name} {}", pair(at))),
        News::Back { name, at } => ("-sdown", format!("master {name} {}", pair(at))),
    }
}

/// Whether a name fits a pattern: `*`, `?`, `\`, and `[…]` with ranges and `^`. One pass with one place
/// to go back to, so that no pattern takes long.
#[must_use]
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while n < name.len() {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            back = Some((p, n));
        } else if let Some(next) = one(pattern, p, name[n]) {
            p = next;
            n += 1;
        } else if let Some((after, from)) = back {
            p = after;
            n = from + 1;
            back = Some((after, n));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

/// The place after what stands for one byte at `at`, if that byte fits.
fn one(pattern: &[u8], at: usize, byte: u8) -> Option<usize> {
    match pattern.get(at)? {
        b'?' => Some(at + 1),
        b'[' => {
            let end = at + 1 + pattern[at + 1..].iter().position(|b| *b == b']')?;
            let set = &pattern[at + 1..end];
            let (set, wanted) = match set.strip_prefix(b"^") {
                Some(set) => (set, false),
                None => (set, true),
            };
            (in_set(set, byte) == wanted).then_some(end + 1)
        }
        b'\\' if at + 1 < pattern.len() => (pattern[at + 1] == byte).then_some(at + 2),
        plain => (*plain == byte).then_some(at + 1),
    }
}

fn in_set(set: &[u8], byte: u8) -> bool {
    let mut at = 0;
    while at < set.len() {
        if let [from, b'-', to, ..] = set[at..] {
            if (from.min(to)..=from.max(to)).contains(&byte) {
                return true;
            }
            at += 3;
        } else {
            if set[at] == byte {
                return true;
            }
            at += 1;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name) in [
            ("*", "+switch-master"),
            ("+*", "+sdown"),
            ("?s*n", "+sdown"),
            ("[+-]sdown", "-sdown"),
            ("[^a-z]sdown", "-sdown"),
            ("\\+sdown", "+sdown"),
            ("*a*b*", "xaxbx"),
        ] {
            assert!(matches(pattern.as_bytes(), name.as_bytes()), "{pattern}");
        }
        for (pattern, name) in [
            ("", "a"),
            ("+sdown", "-sdown"),
            ("[", "["),
            ("a?", "a"),
            ("*a*b*", "xbxax"),
        ] {
            assert!(!matches(pattern.as_bytes(), name.as_bytes()), "{pattern}");
        }
        let slow = b"a*".repeat(100);
        assert!(!matches(&slow, &b"a".repeat(90)));
    }

    #[test]
    fn messages_are_for_those_who_subscribed() {
        let news = News::Moved {
            name: "demo".to_owned(),
            from: ([10, 0, 0, 1], 12_000).into(),
            to: ([10, 0, 0, 2], 12_000).into(),
        };
        let mut channels = Channels::default();
        assert!(channels.messages(&news).is_empty());
        channels.subscribe(Kind::Channel, b"+switch-master");
        channels.subscribe(Kind::Pattern, b"+*");
        channels.subscribe(Kind::Pattern, b"-*");
        let messages = channels.messages(&news);
        assert_eq!(messages.len(), 2);
        let mut bytes = Vec::new();
        messages[0].write(2, &mut bytes);
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "*3\r\n$7\r\nmessage\r\n$14\r\n+switch-master\r\n$35\r\n\
             demo 10.0.0.1 12000 10.0.0.2 12000\r\n"
                .replace("$35", "$34")
        );
        channels.unsubscribe(Kind::Pattern, &[]);
        assert_eq!(channels.messages(&news).len(), 1);
        assert_eq!(channels.count(), 1);
    }

    #[test]
    fn subscriptions_have_a_bound() {
        let mut channels = Channels::default();
        for number in 0..SUBSCRIPTIONS_MAX {
            let name = number.to_string();
            let told = channels.subscribe(Kind::Channel, name.as_bytes());
            assert!(matches!(told, Value::Push(_)));
        }
        let told = channels.subscribe(Kind::Pattern, b"one more");
        assert!(matches!(told, Value::Error(_)));
        assert_eq!(channels.count(), SUBSCRIPTIONS_MAX);
    }
}
