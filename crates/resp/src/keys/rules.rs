//! Finds the keys of a command by its rule. Nothing is copied; arguments are read once or twice.

use crate::command::KeyRule;
use crate::number::strict_i64;
use crate::request::Args;
use memchr::memchr;

/// Why a walk over the arguments ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The syntax is wrong.
    Wrong,
    /// An argument that is needed has not wholly come.
    Short,
    /// The sink knows what it wanted.
    Enough,
}

/// What is done with what is found.
pub(super) trait Sink<'a> {
    /// A key.
    fn key(&mut self, key: &'a [u8]) -> Result<(), Stop>;
    /// A shard channel.
    fn channel(&mut self, channel: &'a [u8]) -> Result<(), Stop>;
    /// A pattern of `SORT` that stands for many keys, with the part that decides the slot of all of
    /// them; `None`: they may be in any.
    fn pattern(&mut self, tag: Option<&'a [u8]>) -> Result<(), Stop>;
}

/// The arguments with their positions; the command's name has position 0.
#[derive(Clone)]
struct Reader<'a> {
    args: Args<'a>,
    at: u64,
    total: u64,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<&'a [u8], Stop> {
        match self.args.next() {
            Some(argument) => {
                self.at += 1;
                Ok(argument)
            }
            None if self.at == self.total => Err(Stop::Wrong),
            None => Err(Stop::Short),
        }
    }

    /// Reads on until `position` is next.
    fn skip_to(&mut self, position: u64) -> Result<(), Stop> {
        while self.at < position {
            self.next()?;
        }
        Ok(())
    }

    fn ended(&self) -> bool {
        self.at == self.total
    }
}

/// Shows the sink all keys of a command whose arguments after the name are `args`.
pub(super) fn walk<'a>(
    rule: KeyRule,
    args: &Args<'a>,
    sink: &mut impl Sink<'a>,
) -> Result<(), Stop> {
    let mut reader = Reader {
        args: args.clone(),
        at: 1,
        total: args.left() + 1,
    };
    match rule {
        KeyRule::Keyless => Ok(()),
        KeyRule::Range(first, last, step) => {
            range(&mut reader, first, last, step, |key| sink.key(key))
        }
        KeyRule::Channels(first, last) => range(&mut reader, first, last, 1, |c| sink.channel(c)),
        KeyRule::Counted(at, step) => counted(&mut reader, at, step, sink).map(|_| ()),
        KeyRule::StoredCounted(at, step) => {
            sink.key(reader.next()?)?;
            // The engine refuses to store what comes of nothing.
            match counted(&mut reader, at, step, sink)? {
                0 => Err(Stop::Wrong),
                _ => Ok(()),
            }
        }
        KeyRule::Streams => streams(&mut reader, sink),
        KeyRule::Geo(from) => geo(&mut reader, from, sink),
        KeyRule::Sort => sort(&mut reader, true, sink),
        KeyRule::SortReadOnly => sort(&mut reader, false, sink),
        KeyRule::Migrate => migrate(&mut reader, sink),
        KeyRule::Stralgo => stralgo(&mut reader, sink),
    }
}

fn range<'a>(
    reader: &mut Reader<'a>,
    first: u8,
    last: i8,
    step: u8,
    mut found: impl FnMut(&'a [u8]) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let (first, step) = (u64::from(first), u64::from(step));
    let last = match u64::try_from(last) {
        Ok(last) => last,
        Err(_) => reader
            .total
            .checked_sub(u64::from(last.unsigned_abs()))
            .ok_or(Stop::Wrong)?,
    };
    if last < first || last >= reader.total {
        return Err(Stop::Wrong);
    }
    // Values without a key, or a key without its value.
    if step > 1 && !(reader.total - first).is_multiple_of(step) {
        return Err(Stop::Wrong);
    }
    let mut position = first;
    while position <= last {
        reader.skip_to(position)?;
        found(reader.next()?)?;
        position += step;
    }
    Ok(())
}

/// The number of keys that the command says it has.
fn counted<'a>(
    reader: &mut Reader<'a>,
    at: u8,
    step: u8,
    sink: &mut impl Sink<'a>,
) -> Result<u64, Stop> {
    reader.skip_to(u64::from(at))?;
    let count = strict_i64(reader.next()?).and_then(|count| u64::try_from(count).ok());
    let count = count.ok_or(Stop::Wrong)?;
    let step = u64::from(step);
    let needed = count.checked_mul(step).ok_or(Stop::Wrong)?;
    if needed > reader.total - reader.at {
        return Err(Stop::Wrong);
    }
    let first = reader.at;
    for number in 0..count {
        reader.skip_to(first + number * step)?;
        sink.key(reader.next()?)?;
    }
    Ok(count)
}

/// `XREAD` and `XREADGROUP`: their options are read as the engine does, since the name of a group or
/// of a consumer may be `streams`.
fn streams<'a>(reader: &mut Reader<'a>, sink: &mut impl Sink<'a>) -> Result<(), Stop> {
    loop {
        let option = reader.next()?;
        let values = match option.len() {
            7 if option.eq_ignore_ascii_case(b"STREAMS") => break,
            5 if option.eq_ignore_ascii_case(b"BLOCK") => 1,
            5 if option.eq_ignore_ascii_case(b"COUNT") => 1,
            5 if option.eq_ignore_ascii_case(b"GROUP") => 2,
            5 if option.eq_ignore_ascii_case(b"NOACK") => 0,
            _ => return Err(Stop::Wrong),
        };
        for _ in 0..values {
            reader.next()?;
        }
    }
    let left = reader.total - reader.at;
    if left == 0 || !left.is_multiple_of(2) {
        return Err(Stop::Wrong);
    }
    for _ in 0..left / 2 {
        sink.key(reader.next()?)?;
    }
    Ok(())
}

/// `GEORADIUS` and `GEORADIUSBYMEMBER`.
fn geo<'a>(reader: &mut Reader<'a>, from: u8, sink: &mut impl Sink<'a>) -> Result<(), Stop> {
    sink.key(reader.next()?)?;
    reader.skip_to(u64::from(from))?;
    let mut stored = None;
    while !reader.ended() {
        let option = reader.next()?;
        let stores =
            option.eq_ignore_ascii_case(b"STORE") || option.eq_ignore_ascii_case(b"STOREDIST");
        if stores && !reader.ended() {
            stored = Some(reader.next()?);
        }
    }
    stored.map_or(Ok(()), |key| sink.key(key))
}

fn sort<'a>(
    reader: &mut Reader<'a>,
    may_store: bool,
    sink: &mut impl Sink<'a>,
) -> Result<(), Stop> {
    sink.key(reader.next()?)?;
    let mut stored = None;
    while !reader.ended() {
        let option = reader.next()?;
        let left = reader.total - reader.at;
        if option.eq_ignore_ascii_case(b"LIMIT") && left >= 2 {
            reader.skip_to(reader.at + 2)?;
        } else if may_store && option.eq_ignore_ascii_case(b"STORE") && left >= 1 {
            stored = Some(reader.next()?);
        } else if (option.eq_ignore_ascii_case(b"BY") || option.eq_ignore_ascii_case(b"GET"))
            && left >= 1
        {
            pattern(reader.next()?, sink)?;
        }
    }
    stored.map_or(Ok(()), |key| sink.key(key))
}

/// Tells the sink of a pattern, unless it stands for no key at all: it has no `*`.
fn pattern<'a>(pattern: &'a [u8], sink: &mut impl Sink<'a>) -> Result<(), Stop> {
    let Some(star) = memchr(b'*', pattern) else {
        return Ok(());
    };
    // What is put in for the star, or comes after it, can change a tag that is not closed before.
    let before = &pattern[..star];
    let tag = memchr(b'{', before).and_then(|open| {
        let length = memchr(b'}', &before[open + 1..])?;
        (length > 0).then(|| &before[open..=open + 1 + length])
    });
    sink.pattern(tag)
}

fn migrate<'a>(reader: &mut Reader<'a>, sink: &mut impl Sink<'a>) -> Result<(), Stop> {
    reader.skip_to(3)?;
    let key = reader.next()?;
    if !key.is_empty() {
        return sink.key(key);
    }
    reader.skip_to(6)?;
    while !reader.ended() {
        let option = reader.next()?;
        let values = if option.eq_ignore_ascii_case(b"AUTH") {
            1
        } else if option.eq_ignore_ascii_case(b"AUTH2") {
            2
        } else if option.eq_ignore_ascii_case(b"KEYS") {
            break;
        } else {
            0
        };
        reader.skip_to(reader.total.min(reader.at + values))?;
    }
    if reader.ended() {
        return sink.key(key);
    }
    while !reader.ended() {
        sink.key(reader.next()?)?;
    }
    Ok(())
}

/// `STRALGO LCS … KEYS a b` of redis 6.2.
fn stralgo<'a>(reader: &mut Reader<'a>, sink: &mut impl Sink<'a>) -> Result<(), Stop> {
    while !reader.ended() {
        let option = reader.next()?;
        if option.eq_ignore_ascii_case(b"STRINGS") {
            return Ok(());
        }
        if option.eq_ignore_ascii_case(b"KEYS") {
            sink.key(reader.next()?)?;
            return sink.key(reader.next()?);
        }
    }
    Ok(())
}
