//! What an operator tunes of a database's and of a proxy's data path, and which values it may have.

use crate::error_code::{ApiError, ErrorCode};
use crate::units::{format_size, parse_size};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Commands of one client without a reply; 0: no limit.
pub const CLIENT_PIPELINE: RangeInclusive<u32> = 0..=2_047;
/// Commands of a database a second; 0: no limit.
pub const COMMANDS_PER_SECOND: RangeInclusive<u64> = 0..=100_000_000;
/// Bytes of a database a second, both ways together; 0: no limit. Anything smaller than the least
/// other value would let no ordinary command pass in a second.
pub const BYTES_PER_SECOND: RangeInclusive<u64> = 1_024..=1_000_000_000_000;
/// From which time on a command is slow, µs; 0: every command is.
pub const SLOWER_THAN_US: RangeInclusive<u64> = 0..=60_000_000;
/// Slow commands that a proxy keeps of a database.
pub const SLOWLOG_LEN: RangeInclusive<u32> = 0..=128;
/// Worker threads of a proxy.
pub const THREADS: RangeInclusive<u32> = 1..=255;
/// How busy workers must be before another one is started, percent.
pub const SCALE_THRESHOLD: RangeInclusive<u32> = 50..=99;
/// For how long, seconds.
pub const SCALE_DURATION: RangeInclusive<u32> = 10..=300;

/// Limits of a database in the proxies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DatabaseTuning {
    /// Most commands of one client that have no reply yet, [`CLIENT_PIPELINE`]; 0: no limit.
    pub max_client_pipeline: u32,
    /// Most commands a second, [`COMMANDS_PER_SECOND`]; 0: no limit.
    pub max_commands_per_second: u64,
    /// Most bytes a second, commands and replies together, [`BYTES_PER_SECOND`]; 0: no limit.
    pub max_bytes_per_second: u64,
    /// How much is kept for clients that do not take their replies.
    pub client_buffer: ClientBuffer,
    /// A command that takes at least this long is slow, µs, [`SLOWER_THAN_US`].
    pub slowlog_log_slower_than: u64,
    /// Slow commands that each proxy keeps, [`SLOWLOG_LEN`].
    pub slowlog_max_len: u32,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Default for DatabaseTuning {
    fn default() -> Self {
        Self {
            max_client_pipeline: 0,
            max_commands_per_second: 0,
            max_bytes_per_second: 0,
            client_buffer: ClientBuffer::default(),
            slowlog_log_slower_than: 10_000,
            slowlog_max_len: *SLOWLOG_LEN.end(),
            extra: Map::new(),
        }
    }
}

impl DatabaseTuning {
    /// The same with a change applied.
    ///
    /// # Errors
    /// `invalid_param`: a value is out of its range.
    pub fn changed(&self, change: &TuningChange) -> Result<Self, ApiError> {
        let mut tuning = self.clone();
        set(&mut tuning.max_client_pipeline, change.max_client_pipeline);
        set(
            &mut tuning.max_commands_per_second,
            change.max_commands_per_second,
        );
        set(
            &mut tuning.max_bytes_per_second,
            change.max_bytes_per_second,
        );
        set(&mut tuning.client_buffer, change.client_buffer);
        set(
            &mut tuning.slowlog_log_slower_than,
            change.slowlog_log_slower_than,
        );
        set(&mut tuning.slowlog_max_len, change.slowlog_max_len);
        tuning.check()?;
        Ok(tuning)
    }

    /// Whether every value is in its range.
    ///
    /// # Errors
    /// `invalid_param`, naming the first that is not.
    pub fn check(&self) -> Result<(), ApiError> {
        within(
            "max_client_pipeline",
            self.max_client_pipeline,
            &CLIENT_PIPELINE,
            "0: no limit",
        )?;
        within(
            "max_commands_per_second",
            self.max_commands_per_second,
            &COMMANDS_PER_SECOND,
            "0: no limit",
        )?;
        if self.max_bytes_per_second != 0 {
            within(
                "max_bytes_per_second",
                self.max_bytes_per_second,
                &BYTES_PER_SECOND,
                "or 0: no limit",
            )?;
        }
        within(
            "slowlog_log_slower_than",
            self.slowlog_log_slower_than,
            &SLOWER_THAN_US,
            "microseconds",
        )?;
        within(
            "slowlog_max_len",
            self.slowlog_max_len,
            &SLOWLOG_LEN,
            "commands",
        )?;
        self.client_buffer.check()
    }
}

/// A change of [`DatabaseTuning`]: what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TuningChange {
    /// See [`DatabaseTuning::max_client_pipeline`].
    pub max_client_pipeline: Option<u32>,
    /// See [`DatabaseTuning::max_commands_per_second`].
    pub max_commands_per_second: Option<u64>,
    /// See [`DatabaseTuning::max_bytes_per_second`].
    pub max_bytes_per_second: Option<u64>,
    /// See [`DatabaseTuning::client_buffer`].
    pub client_buffer: Option<ClientBuffer>,
    /// See [`DatabaseTuning::slowlog_log_slower_than`].
    pub slowlog_log_slower_than: Option<u64>,
    /// See [`DatabaseTuning::slowlog_max_len`].
    pub slowlog_max_len: Option<u32>,
}

fn set<T>(value: &mut T, wanted: Option<T>) {
    if let Some(wanted) = wanted {
        *value = wanted;
    }
}

fn within<T: PartialOrd + fmt::Display>(
    name: &str,
    value: T,
    range: &RangeInclusive<T>,
    note: &str,
) -> Result<(), ApiError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(ApiError::new(
        ErrorCode::InvalidParam,
        format!(
            "{name} {value} cannot be: from {} to {} ({note})",
            range.start(),
            range.end()
        ),
    ))
}

/// How much a proxy keeps for a client that does not take its replies. Nothing is thrown away: what is
/// more stays with the shard, and the client's commands stay in its socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientBuffer {
    /// Bytes above which nothing more is read from shards for the client.
    pub hard: u64,
    /// Bytes above which its commands are not read.
    pub soft: u64,
    /// It is closed when it takes nothing for six times so many seconds while more than `soft` waits for it.
    pub seconds: u32,
}

impl Default for ClientBuffer {
    fn default() -> Self {
        Self {
            hard: 16 << 20,
            soft: 1 << 20,
            seconds: 10,
        }
    }
}

impl ClientBuffer {
    /// Smallest `soft`, bytes: what a proxy receives at once fits in.
    pub const SOFT_MIN: u64 = 64 << 10;
    /// Largest `hard`, bytes.
    pub const HARD_MAX: u64 = 1 << 30;
    /// Range of `seconds`.
    pub const SECONDS: RangeInclusive<u32> = 1..=3_600;

    fn check(self) -> Result<(), ApiError> {
        let good = self.soft >= Self::SOFT_MIN
            && self.soft <= self.hard
            && self.hard <= Self::HARD_MAX
            && Self::SECONDS.contains(&self.seconds);
        if good {
            return Ok(());
        }
        Err(ApiError::new(
            ErrorCode::InvalidParam,
            format!(
                "client_buffer {self} cannot be: <hard>:<soft>:<seconds>, with {} <= soft <= hard <= \
                 {} and seconds from {} to {}",
                format_size(Self::SOFT_MIN),
                format_size(Self::HARD_MAX),
                Self::SECONDS.start(),
                Self::SECONDS.end()
            ),
        ))
    }
}

/// `16MB:1MB:10`.
impl fmt::Display for ClientBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = |bytes: u64| match format_size(bytes) {
            text if parse_size(&text) == Ok(bytes) => text,
            _ => bytes.to_string(),
        };
        write!(
            f,
            "{}:{}:{}",
            exact(self.hard),
            exact(self.soft),
            self.seconds
        )
    }
}

/// `16MB:1MB:10`; a number without a unit is bytes. One size alone is `hard`: `soft` is then a
/// sixteenth of it.
impl FromStr for ClientBuffer {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        let size = |part: &str| {
            parse_size(part).map_err(|reason| {
                ApiError::new(ErrorCode::InvalidParam, format!("client_buffer: {reason}"))
            })
        };
        let wrong = || {
            ApiError::new(
                ErrorCode::InvalidParam,
                "client_buffer is <hard>:<soft>:<seconds>, such as 16MB:1MB:10, or <hard> alone"
                    .to_owned(),
            )
        };
        let parts: Vec<&str> = text.split(':').collect();
        let buffer = match parts[..] {
            [hard] => {
                let hard = size(hard)?;
                Self {
                    hard,
                    soft: (hard / 16).max(Self::SOFT_MIN),
                    ..Self::default()
                }
            }
            [hard, soft, seconds] => Self {
                hard: size(hard)?,
                soft: size(soft)?,
                seconds: seconds.trim().parse().map_err(|_| wrong())?,
            },
            _ => return Err(wrong()),
        };
        buffer.check()?;
        Ok(buffer)
    }
}

/// Whether a proxy's number of worker threads follows its load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ProxyMode {
    /// It does, between `threads` and `max_threads`.
    #[default]
    Dynamic,
    /// It is `threads`.
    Static,
}

/// Settings of a node's proxy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProxySettings {
    /// Whether the number of worker threads follows the load.
    pub mode: ProxyMode,
    /// Worker threads, in dynamic mode the least; 0: half of the cores, at least one.
    pub threads: u32,
    /// Most worker threads in dynamic mode; 0: three quarters of the cores, since engines need the rest.
    pub max_threads: u32,
    /// Another worker is started when those that run are busier than this, percent …
    pub scale_threshold: u32,
    /// … for so many seconds.
    pub scale_duration: u32,
    /// Fields of a newer release.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Default for ProxySettings {
    fn default() -> Self {
        Self {
            mode: ProxyMode::Dynamic,
            threads: 0,
            max_threads: 0,
            scale_threshold: 80,
            scale_duration: 30,
            extra: Map::new(),
        }
    }
}

impl ProxySettings {
    /// A fixed number of worker threads.
    #[must_use]
    pub fn fixed(threads: u32) -> Self {
        Self {
            mode: ProxyMode::Static,
            threads,
            ..Self::default()
        }
    }

    /// Fewest and most worker threads on a machine with so many cores.
    #[must_use]
    pub fn range(&self, cores: usize) -> RangeInclusive<usize> {
        let given = |threads: u32| (threads > 0).then(|| threads.min(*THREADS.end()) as usize);
        let least = given(self.threads).unwrap_or((cores / 2).clamp(1, 255));
        let most = match self.mode {
            ProxyMode::Static => least,
            ProxyMode::Dynamic => given(self.max_threads).unwrap_or((cores * 3 / 4).clamp(1, 255)),
        };
        least..=most.max(least)
    }

    /// The same with a change applied.
    ///
    /// # Errors
    /// `invalid_param`: a value is out of its range, or they do not fit.
    pub fn changed(&self, change: &ProxyChange) -> Result<Self, ApiError> {
        let mut settings = self.clone();
        set(&mut settings.mode, change.mode);
        set(&mut settings.threads, change.threads);
        set(&mut settings.max_threads, change.max_threads);
        set(&mut settings.scale_threshold, change.scale_threshold);
        set(&mut settings.scale_duration, change.scale_duration);
        let threads = |name, value| match value {
            0 => Ok(()),
            _ => within(name, value, &THREADS, "or 0: from the number of cores"),
        };
        threads("threads", settings.threads)?;
        threads("max_threads", settings.max_threads)?;
        within(
            "scale_threshold",
            settings.scale_threshold,
            &SCALE_THRESHOLD,
            "percent",
        )?;
        within(
            "scale_duration",
            settings.scale_duration,
            &SCALE_DURATION,
            "seconds",
        )?;
        if settings.max_threads > 0 && settings.threads > settings.max_threads {
            return Err(ApiError::new(
                ErrorCode::InvalidParam,
                format!(
                    "threads {} is more than max_threads {}: change both",
                    settings.threads, settings.max_threads
                ),
            ));
        }
        Ok(settings)
    }
}

/// A change of [`ProxySettings`]: what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProxyChange {
    /// See [`ProxySettings::mode`].
    pub mode: Option<ProxyMode>,
    /// See [`ProxySettings::threads`].
    pub threads: Option<u32>,
    /// See [`ProxySettings::max_threads`].
    pub max_threads: Option<u32>,
    /// See [`ProxySettings::scale_threshold`].
    pub scale_threshold: Option<u32>,
    /// See [`ProxySettings::scale_duration`].
    pub scale_duration: Option<u32>,
}

/// Classes of events, in the order in which the engines print them.
const CLASSES: &str = "g$lshzxetd";
/// What more there is: never meant by `A`, in the engines' order after the classes.
const OTHERS: &str = "KEmn";

/// `notify-keyspace-events` as the engines print it: `A` for all classes, every letter once.
///
/// # Errors
/// The letter that no engine knows.
pub fn keyspace_events(flags: &str) -> Result<String, String> {
    let known = |c: char| c == 'A' || CLASSES.contains(c) || OTHERS.contains(c);
    if let Some(wrong) = flags.chars().find(|c| !known(*c)) {
        return Err(format!(
            "notify_keyspace_events: '{}' is no flag: K and E say where, A or letters of {CLASSES}mn \
             which events; empty: none",
            wrong.escape_default()
        ));
    }
    let has = |c: char| flags.contains(c);
    let mut out = String::new();
    if has('A') || CLASSES.chars().all(has) {
        out.push('A');
    } else {
        out.extend(CLASSES.chars().filter(|c| has(*c)));
    }
    out.extend(OTHERS.chars().filter(|c| has(*c)));
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the last release stored, which knew none of this.
    #[test]
    fn documents_of_the_last_release_have_the_defaults() {
        let tuning: DatabaseTuning = serde_json::from_str("{}").unwrap();
        assert_eq!(tuning, DatabaseTuning::default());
        let settings: ProxySettings = serde_json::from_str(r#"{"threads":3}"#).unwrap();
        assert_eq!((settings.threads, settings.scale_threshold), (3, 80));
        let newer = r#"{"max_client_pipeline":5,"of_a_newer_release":[1]}"#;
        let tuning: DatabaseTuning = serde_json::from_str(newer).unwrap();
        let text = serde_json::to_string(&tuning).unwrap();
        assert!(text.contains(r#""of_a_newer_release":[1]"#), "{text}");
    }

    #[test]
    fn values_out_of_range_are_refused_by_name() {
        let refused = |change: TuningChange| {
            let error = DatabaseTuning::default().changed(&change).unwrap_err();
            error.description
        };
        let pipeline = TuningChange {
            max_client_pipeline: Some(2_048),
            ..TuningChange::default()
        };
        assert_eq!(
            refused(pipeline),
            "max_client_pipeline 2048 cannot be: from 0 to 2047 (0: no limit)"
        );
        let bytes = TuningChange {
            max_bytes_per_second: Some(1),
            ..TuningChange::default()
        };
        assert!(refused(bytes).starts_with("max_bytes_per_second 1 cannot be"));
        let length = TuningChange {
            slowlog_max_len: Some(129),
            ..TuningChange::default()
        };
        assert!(refused(length).starts_with("slowlog_max_len 129 cannot be"));
        let good = TuningChange {
            max_bytes_per_second: Some(0),
            slowlog_log_slower_than: Some(0),
            ..TuningChange::default()
        };
        assert_eq!(
            DatabaseTuning::default()
                .changed(&good)
                .unwrap()
                .slowlog_log_slower_than,
            0
        );
    }

    #[test]
    fn client_buffers_as_written() {
        let good = |text: &str| text.parse::<ClientBuffer>().unwrap().to_string();
        assert_eq!(good("16MB:1MB:10"), "16MB:1MB:10");
        assert_eq!(good("32MB"), "32MB:2MB:10");
        assert_eq!(good("100001:70001:1"), "100001:70001:1");
        for wrong in [
            "",
            "1MB:2MB:3",
            "1MB:1KB:3",
            "2GB:1MB:3",
            "4MB:1MB:0",
            "4MB:1MB",
            "4MB:1MB:x",
        ] {
            assert!(wrong.parse::<ClientBuffer>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn proxies_have_threads_for_their_machine() {
        let auto = ProxySettings::default();
        assert_eq!(auto.range(1), 1..=1);
        assert_eq!(auto.range(2), 1..=1);
        assert_eq!(auto.range(16), 8..=12);
        assert_eq!(ProxySettings::fixed(3).range(2), 3..=3);
        let change = ProxyChange {
            threads: Some(4),
            max_threads: Some(3),
            ..ProxyChange::default()
        };
        assert!(auto.changed(&change).is_err());
        let change = ProxyChange {
            scale_threshold: Some(100),
            ..ProxyChange::default()
        };
        assert!(auto.changed(&change).is_err());
    }

    #[test]
    fn keyspace_events_as_the_engines_print_them() {
        let good = |flags: &str| keyspace_events(flags).unwrap();
        assert_eq!(good(""), "");
        assert_eq!(good("KEA"), "AKE");
        assert_eq!(good("Ex$g"), "g$xE");
        assert_eq!(good("Kg$lshzxetd"), "AK");
        assert_eq!(good("mnKEAA"), "AKEmn");
        assert!(keyspace_events("KE!").unwrap_err().contains("'!'"));
    }
}
