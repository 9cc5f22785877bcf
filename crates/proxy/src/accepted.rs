//! What `COMMAND` tells of: the commands that this endpoint accepts, and no others.
//!
//! The engine's replies are passed on without what [`compatibility::is_refused`] says is refused by name.
//! Nothing is decoded: elements are found, and those that stay are copied.

use crate::compatibility;
use crate::merge::{REFUSED, walk};

/// What is said if a reply is no reply of `COMMAND`, or longer than what is looked into.
const UNREADABLE: &[u8] =
    b"-ERR the shard's reply cannot be looked into; ask for fewer commands\r\n";
/// Asked for in place of `COMMAND COUNT`: only the rows tell which are to be counted.
pub(crate) const ALL: &[u8] = b"*1\r\n$7\r\nCOMMAND\r\n";
/// Where a row has its name, and the rows of its subcommands.
const NAME: usize = 0;
const SUBCOMMANDS: usize = 9;

/// Which of the replies of `COMMAND` it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// A row for each command.
    Rows,
    /// A row or null for each name that was asked for.
    Asked,
    /// Rows, of which the client hears how many there are.
    Count,
    /// Names.
    Names,
    /// Texts for each name.
    Docs,
}

impl View {
    /// That of `COMMAND` with this subcommand and so many arguments after it; `None`: the engine's reply tells of
    /// no command.
    pub(crate) fn of(sub: &[u8], after: u64) -> Option<Self> {
        match sub.to_ascii_uppercase().as_slice() {
            b"" => Some(Self::Rows),
            b"COUNT" if after == 0 => Some(Self::Count),
            b"INFO" if after == 0 => Some(Self::Rows),
            b"INFO" => Some(Self::Asked),
            b"LIST" => Some(Self::Names),
            b"DOCS" => Some(Self::Docs),
            _ => None,
        }
    }
}

/// A reply of `COMMAND` as a client gets it that speaks version `resp` of the protocol.
pub(crate) fn shown(view: View, reply: &[u8], resp: u8, several_shards: bool) -> Vec<u8> {
    if walk::is_error(reply) {
        return reply.to_vec();
    }
    let filter = Filter {
        null: if resp == 3 { b"_\r\n" } else { b"$-1\r\n" },
        several_shards,
    };
    let mut out = Vec::with_capacity(reply.len());
    let done = match view {
        View::Rows => filter.rows(reply, false, &mut out),
        View::Asked => filter.rows(reply, true, &mut out),
        View::Count => filter.count(reply, &mut out),
        View::Names => filter.names(reply, &mut out),
        View::Docs => filter.docs(reply, &mut out),
    };
    done.map_or_else(|| UNREADABLE.to_vec(), |()| out)
}

struct Filter {
    null: &'static [u8],
    several_shards: bool,
}

impl Filter {
    /// Whether what has this name is accepted: `get`, `config|get`.
    fn takes(&self, name: &[u8]) -> Option<bool> {
        let name = str::from_utf8(walk::bulk(name)?).ok()?;
        let (name, sub) = match name.split_once('|') {
            Some((name, sub)) => (name, Some(sub)),
            None => (name, None),
        };
        let over_shards = || REFUSED.iter().any(|known| known.eq_ignore_ascii_case(name));
        Some(!(compatibility::is_refused(name, sub) || self.several_shards && over_shards()))
    }

    /// Whether a row stays. A null stands for a command that the engine does not have.
    fn row_stays(&self, row: &[u8]) -> Option<bool> {
        if walk::is_null(row) {
            return Some(true);
        }
        self.takes(walk::items(row)?.get(NAME)?)
    }

    fn rows(&self, rows: &[u8], asked: bool, out: &mut Vec<u8>) -> Option<()> {
        let mut kept = Vec::new();
        for row in walk::items(rows)? {
            if self.row_stays(row)? {
                kept.push(row);
            } else if asked {
                kept.push(self.null);
            }
        }
        walk::open(*rows.first()?, kept.len(), out);
        for row in kept {
            self.row(row, out)?;
        }
        Some(())
    }

    /// A row, without the subcommands that are refused.
    fn row(&self, row: &[u8], out: &mut Vec<u8>) -> Option<()> {
        if walk::is_null(row) {
            out.extend_from_slice(row);
            return Some(());
        }
        let fields = walk::items(row)?;
        walk::open(*row.first()?, fields.len(), out);
        for (at, field) in fields.into_iter().enumerate() {
            if at == SUBCOMMANDS {
                self.rows(field, false, out)?;
            } else {
                out.extend_from_slice(field);
            }
        }
        Some(())
    }

    fn count(&self, rows: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let mut count = 0;
        for row in walk::items(rows)? {
            count += i64::from(self.row_stays(row)?);
        }
        walk::number(count, out);
        Some(())
    }

    fn names(&self, names: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let mut kept = Vec::new();
        for name in walk::items(names)? {
            if self.takes(name)? {
                kept.push(name);
            }
        }
        walk::open(*names.first()?, kept.len(), out);
        for name in kept {
            out.extend_from_slice(name);
        }
        Some(())
    }

    /// Names and their texts, of which one may be about subcommands.
    fn docs(&self, docs: &[u8], out: &mut Vec<u8>) -> Option<()> {
        let items = walk::items(docs)?;
        let (pairs, []) = items.as_chunks::<2>() else {
            return None;
        };
        let mut kept = Vec::new();
        for [name, doc] in pairs {
            if self.takes(name)? {
                kept.push((name, doc));
            }
        }
        open_pairs(docs, kept.len(), out)?;
        for (name, doc) in kept {
            out.extend_from_slice(name);
            let texts = walk::items(doc)?;
            let (texts, []) = texts.as_chunks::<2>() else {
                return None;
            };
            open_pairs(doc, texts.len(), out)?;
            for [key, text] in texts {
                out.extend_from_slice(key);
                if walk::bulk(key) == Some(b"subcommands") {
                    self.docs(text, out)?;
                } else {
                    out.extend_from_slice(text);
                }
            }
        }
        Some(())
    }
}

/// Begins so many pairs, as a map or as an array, whichever `like` is.
fn open_pairs(like: &[u8], pairs: usize, out: &mut Vec<u8>) -> Option<()> {
    let kind = *like.first()?;
    walk::open(kind, if kind == b'%' { pairs } else { pairs * 2 }, out);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use resp::value::Value;

    fn bulk(text: &str) -> Value {
        Value::bulk(text)
    }

    fn row(name: &str, subs: &[&str]) -> Value {
        let subs = subs.iter().map(|sub| row(sub, &[])).collect();
        let mut fields = vec![bulk(name)];
        fields.extend((1..SUBCOMMANDS).map(|_| Value::Integer(1)));
        fields.push(Value::Array(subs));
        Value::Array(fields)
    }

    fn asked(view: View, reply: &Value, resp: u8) -> Value {
        let mut bytes = Vec::new();
        reply.write(resp, &mut bytes);
        let shown = shown(view, &bytes, resp, true);
        let (value, used) = Value::decode(&shown).unwrap();
        assert_eq!(used, shown.len());
        value
    }

    #[test]
    fn rows_and_names() {
        let all = Value::Array(vec![
            row("get", &[]),
            row("shutdown", &[]),
            row("swapdb", &[]),
            row("config", &["config|get", "config|rewrite", "config|set"]),
            row("cluster", &["cluster|info"]),
            row("acl", &["acl|whoami", "acl|list"]),
        ]);
        let wanted = Value::Array(vec![
            row("get", &[]),
            row("config", &["config|get", "config|set"]),
            row("acl", &["acl|whoami"]),
        ]);
        assert_eq!(asked(View::Rows, &all, 2), wanted);
        assert_eq!(asked(View::Rows, &all, 3), wanted);
        assert_eq!(asked(View::Count, &all, 2), Value::Integer(3));
        let some = Value::Array(vec![
            row("shutdown", &[]),
            Value::Null,
            row("config|set", &[]),
        ]);
        let wanted = Value::Array(vec![Value::Null, Value::Null, row("config|set", &[])]);
        assert_eq!(asked(View::Asked, &some, 2), wanted);
        assert_eq!(asked(View::Asked, &some, 3), wanted);
        let names = ["debug", "get", "config|rewrite", "slowlog|get"].map(bulk);
        let wanted = Value::Array(vec![bulk("get"), bulk("slowlog|get")]);
        assert_eq!(asked(View::Names, &Value::Array(names.into()), 2), wanted);
    }

    #[test]
    fn docs() {
        let doc = |subs: &[&str]| {
            let subs = subs.iter().map(|sub| (bulk(sub), Value::Map(Vec::new())));
            Value::Map(vec![
                (bulk("summary"), bulk("shutdown")),
                (bulk("subcommands"), Value::Map(subs.collect())),
            ])
        };
        let all = Value::Map(vec![
            (bulk("shutdown"), doc(&[])),
            (bulk("config"), doc(&["config|rewrite", "config|get"])),
        ]);
        let wanted = Value::Map(vec![(bulk("config"), doc(&["config|get"]))]);
        assert_eq!(asked(View::Docs, &all, 3), wanted);
        let (mut flat, mut bytes) = (Vec::new(), Vec::new());
        wanted.write(2, &mut flat);
        all.write(2, &mut bytes);
        assert_eq!(shown(View::Docs, &bytes, 2, false), flat);
    }

    #[test]
    fn what_is_asked() {
        assert_eq!(View::of(b"", 0), Some(View::Rows));
        assert_eq!(View::of(b"info", 0), Some(View::Rows));
        assert_eq!(View::of(b"Info", 2), Some(View::Asked));
        assert_eq!(View::of(b"COUNT", 0), Some(View::Count));
        // The engine says what is wrong with it.
        assert_eq!(View::of(b"COUNT", 1), None);
        assert_eq!(View::of(b"GETKEYS", 3), None);
    }

    proptest! {
        /// Whatever a shard sends, the client gets one reply.
        #[test]
        fn anything_becomes_a_reply(
            reply in proptest::collection::vec(any::<u8>(), 0..64),
            view in prop::sample::select(&[View::Rows, View::Asked, View::Count, View::Names, View::Docs][..]),
        ) {
            let out = shown(view, &reply, 2, true);
            prop_assert!(walk::is_whole(&out) || out == reply);
        }
    }
}
