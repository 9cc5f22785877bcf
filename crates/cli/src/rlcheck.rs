//! `rlcheck`: checks this host and this node, and nothing else.
//!
//! | file | tests |
//! |---|---|
//! | [`files`] | `verify_owner_and_group`, `verify_capabilities` |
//! | [`services`] | `verify_bootstrap_status`, `verify_services`, `verify_existing_sockets` |
//! | [`host`] | `verify_port_range`, `verify_host_settings` |
//! | [`engines`] | `verify_pidfiles`, `verify_engines` |
//! | [`network`] | `verify_tcp_connectivity`, `verify_encrypted_gossip` |
//! | [`discovery`] | `verify_discovery` |
//! | [`report`] | what is printed and logged |

pub mod discovery;
pub mod engines;
pub mod files;
pub mod host;
pub mod network;
pub mod report;
pub mod services;

use crate::installation::{Installation, version_line};
use clap::Parser;
use client::rest::RestClient;
use model::node_config::NodeConfig;
use model::rest::ClusterInfo;
use report::{Findings, Outcome, Report};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Exit code when every test passed.
pub const EXIT_PASSED: u8 = 0;
/// Exit code when a test failed.
pub const EXIT_FAILED: u8 = 1;
/// Exit code when the tests could not run.
pub const EXIT_NOT_RUN: u8 = 2;

/// Most retries.
const RETRY_MAX: u32 = 1_000;
/// Longest wait between retries, seconds.
const RETRY_DELAY_MAX: u64 = 3_600;

/// Checks this host and this node.
#[derive(Debug, Parser)]
#[command(
    name = "rlcheck",
    disable_version_flag = true,
    after_help = "Exit codes: 0 all passed, 1 a test failed, 2 the tests could not run."
)]
struct Options {
    /// Leaves out these tests, joined by commas.
    #[arg(long, value_name = "TEXT", value_delimiter = ',')]
    suppress_tests: Vec<String>,
    /// Tries a failed test again, at most so often.
    #[arg(long, value_name = "INTEGER", default_value_t = 0,
        value_parser = clap::value_parser!(u32).range(0..=i64::from(RETRY_MAX)))]
    retry: u32,
    /// Seconds between two tries.
    #[arg(long, value_name = "INTEGER", default_value_t = 1,
        value_parser = clap::value_parser!(u64).range(0..=RETRY_DELAY_MAX))]
    retry_delay: u64,
    /// Another file for the log, or a folder for rlcheck.log.
    #[arg(long, value_name = "TEXT")]
    file_path: Option<PathBuf>,
    /// Runs all tests and lists the failures at the end, instead of stopping at the first.
    #[arg(long)]
    continue_on_error: bool,
    /// Counts advice on host settings as failures.
    #[arg(long)]
    strict: bool,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    /// Prints version and build id.
    #[arg(long, short = 'V')]
    version: bool,
}

/// What a test looks at.
#[derive(Debug)]
pub struct Subject {
    /// The node's configuration.
    pub config: NodeConfig,
    /// Its REST.
    pub rest: RestClient,
    /// Whether this node belongs to a cluster.
    pub is_member: bool,
    /// The cluster that it was removed from.
    pub removed_from: Option<String>,
}

impl Subject {
    /// A node by its configuration, and by what it says of itself.
    pub async fn of(config: NodeConfig) -> Self {
        let rest = RestClient::new(config.http_socket());
        let mut is_member = config.identity_path().exists();
        let mut removed_from = None;
        // Why there is no answer is the business of the tests.
        if is_member
            && let Ok(cluster) = rest.get::<ClusterInfo>("/v1/cluster").await
            && cluster.removed
        {
            is_member = false;
            removed_from = Some(cluster.name);
        }
        Self {
            config,
            rest,
            is_member,
            removed_from,
        }
    }
}

/// A test.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "each is the test of its name")]
pub enum Test {
    OwnerAndGroup,
    BootstrapStatus,
    Services,
    PortRange,
    Pidfiles,
    Capabilities,
    ExistingSockets,
    HostSettings,
    TcpConnectivity,
    EncryptedGossip,
    Discovery,
    Engines,
}

impl Test {
    /// Every test, in the order in which they run.
    pub const ALL: [Self; 12] = [
        Self::OwnerAndGroup,
        Self::BootstrapStatus,
        Self::Services,
        Self::PortRange,
        Self::Pidfiles,
        Self::Capabilities,
        Self::ExistingSockets,
        Self::HostSettings,
        Self::TcpConnectivity,
        Self::EncryptedGossip,
        Self::Discovery,
        Self::Engines,
    ];

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OwnerAndGroup => "verify_owner_and_group",
            Self::BootstrapStatus => "verify_bootstrap_status",
            Self::Services => "verify_services",
            Self::PortRange => "verify_port_range",
            Self::Pidfiles => "verify_pidfiles",
            Self::Capabilities => "verify_capabilities",
            Self::ExistingSockets => "verify_existing_sockets",
            Self::HostSettings => "verify_host_settings",
            Self::TcpConnectivity => "verify_tcp_connectivity",
            Self::EncryptedGossip => "verify_encrypted_gossip",
            Self::Discovery => "verify_discovery",
            Self::Engines => "verify_engines",
        }
    }

    /// The test of a name; older names count too.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        if name == "verify_processes" {
            return Some(Self::Services);
        }
        Self::ALL.into_iter().find(|test| test.name() == name)
    }

    async fn run(self, subject: &Subject) -> Findings {
        match self {
            Self::OwnerAndGroup => files::owner_and_group(&subject.config),
            Self::BootstrapStatus => services::bootstrap_status(subject).await,
            Self::Services => services::services(subject).await,
            Self::PortRange => host::port_range(),
            Self::Pidfiles => engines::pidfiles(&subject.config),
            Self::Capabilities => files::capabilities(&subject.config),
            Self::ExistingSockets => services::existing_sockets(subject),
            Self::HostSettings => host::settings(subject).await,
            Self::TcpConnectivity => network::tcp_connectivity(subject).await,
            Self::EncryptedGossip => network::encrypted_gossip(subject).await,
            Self::Discovery => discovery::discovery(subject).await,
            Self::Engines => engines::engines(subject).await,
        }
    }
}

/// Runs the tests that the process's arguments leave.
#[must_use]
pub fn main() -> ExitCode {
    let options = Options::parse();
    if options.version {
        report::print(&format!("{}\n", version_line("rlcheck")));
        return ExitCode::from(EXIT_PASSED);
    }
    match run(&options) {
        Ok(true) => ExitCode::from(EXIT_PASSED),
        Ok(false) => ExitCode::from(EXIT_FAILED),
        Err(why) => {
            report::complain(&format!("rlcheck: {why}"));
            ExitCode::from(EXIT_NOT_RUN)
        }
    }
}

fn run(options: &Options) -> Result<bool, String> {
    let suppressed = options
        .suppress_tests
        .iter()
        .map(|name| name.trim())
        .filter(|name| !name.is_empty())
        .map(|name| Test::named(name).ok_or_else(|| unknown(name)))
        .collect::<Result<Vec<Test>, String>>()?;
    let installation = Installation::find().map_err(|e| e.to_string())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| format!("cannot start: {e}"))?;
    let mut report = Report::begin(
        &installation.config,
        options.file_path.as_deref(),
        options.json,
    );
    let subject = runtime.block_on(Subject::of(installation.config));
    for test in Test::ALL {
        if suppressed.contains(&test) {
            report.suppressed(test);
            continue;
        }
        report.running(test);
        let outcome = runtime.block_on(try_test(test, &subject, options, &mut report));
        let failed = outcome.failed();
        report.ended(test, outcome);
        if failed && !options.continue_on_error {
            break;
        }
    }
    Ok(report.finish())
}

/// Runs a test, again after a failure if that was asked for.
async fn try_test(
    test: Test,
    subject: &Subject,
    options: &Options,
    report: &mut Report,
) -> Outcome {
    let mut left = options.retry;
    loop {
        let outcome = Outcome::of(test.run(subject).await, options.strict);
        if !outcome.failed() || left == 0 {
            return outcome;
        }
        left -= 1;
        report.retrying(&outcome, options.retry_delay);
        tokio::time::sleep(Duration::from_secs(options.retry_delay)).await;
    }
}

fn unknown(name: &str) -> String {
    let known: Vec<&str> = Test::ALL.iter().map(|test| test.name()).collect();
    format!(
        "--suppress-tests: there is no test '{}', only {}",
        model::validate::shown(name),
        known.join(", ")
    )
}
