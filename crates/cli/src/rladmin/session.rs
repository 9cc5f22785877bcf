//! One run of `rladmin`: an install, a way to its REST, and the commands that are sent there.

use super::failure::Failure;
use super::grammar::Verb;
use super::node::snapshot;
use super::parse::{Invocation, Options, Typed, parse};
use super::screen::{Screen, read_line};
use super::{
    actions, balance, cluster, database, failover, help, info, join, migrate, node, proxy, racks,
    status, upgrade, words,
};
use crate::installation::Installation;
use client::rest::RestClient;
use std::io::Write;
use std::ops::ControlFlow;

/// What a command works with.
#[derive(Clone, Debug)]
pub struct Context {
    /// The install.
    pub installation: Installation,
    /// Its REST.
    pub rest: RestClient,
    /// Where it writes and asks.
    pub screen: Screen,
}

/// One run.
#[derive(Debug)]
pub struct Session {
    /// Where it writes and asks.
    pub screen: Screen,
    runtime: tokio::runtime::Runtime,
    installation: Option<Installation>,
}

impl Session {
    /// Begins a run. The install is looked for when a command needs it.
    ///
    /// # Errors
    /// When the process may not have what it needs (descriptors).
    pub fn begin(options: Options) -> Result<Self, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Failure::Other(format!("cannot start: {e}")))?;
        let screen = Screen {
            json: options.json,
            yes: options.yes,
            ..Screen::new()
        };
        Ok(Self {
            screen,
            runtime,
            installation: None,
        })
    }

    /// The install, once a command needed it.
    #[must_use]
    pub const fn installation(&self) -> Option<&Installation> {
        self.installation.as_ref()
    }

    fn context(&mut self, screen: Screen) -> Result<Context, Failure> {
        let installation = match &self.installation {
            Some(found) => found.clone(),
            None => self.installation.insert(Installation::find()?).clone(),
        };
        let rest = RestClient::new(installation.config.http_socket());
        Ok(Context {
            installation,
            rest,
            screen,
        })
    }

    /// Carries out one command.
    ///
    /// # Errors
    /// Why it did not do what it should.
    pub fn command(&mut self, invocation: &Invocation) -> Result<(), Failure> {
        let context = self.context(self.screen)?;
        self.runtime.block_on(carry_out(&context, invocation))
    }

    /// One line of the shell: failures are printed; Ctrl-C comes back to the prompt.
    pub fn shell_line(&mut self, line: &str) -> ControlFlow<()> {
        let result = match self.understand(line) {
            Ok(None) => Ok(()),
            Ok(Some((_, invocation))) if invocation.verb() == Verb::Exit => {
                return ControlFlow::Break(());
            }
            Ok(Some((screen, invocation))) => self.context(screen).and_then(|context| {
                self.runtime.block_on(async {
                    tokio::select! {
                        result = carry_out(&context, &invocation) => result,
                        _ = tokio::signal::ctrl_c() => Err(Failure::Other(
                            "interrupted: what was asked for before goes on".to_owned(),
                        )),
                    }
                })
            }),
            Err(failure) => Err(failure),
        };
        if let Err(failure) = result {
            let text = failure.render(self.installation());
            let _ = std::io::stderr().write_all(text.as_bytes());
        }
        ControlFlow::Continue(())
    }

    /// Commands line by line from standard input, up to the first that fails.
    ///
    /// # Errors
    /// Of that command, with the number of its line.
    pub fn script(&mut self) -> Result<(), Failure> {
        self.screen.script = true;
        let mut number = 0;
        while let Some(line) = read_line()? {
            number += 1;
            let at_line = |failure| match failure {
                Failure::Usage { message, usage } => Failure::Usage {
                    message: format!("line {number}: {message}"),
                    usage,
                },
                Failure::NotInRelease { message, remedy } => Failure::NotInRelease {
                    message: format!("line {number}: {message}"),
                    remedy,
                },
                Failure::Other(message) => Failure::Other(format!("line {number}: {message}")),
                other => other,
            };
            let Some((screen, invocation)) = self.understand(&line).map_err(at_line)? else {
                continue;
            };
            if invocation.verb() == Verb::Exit {
                break;
            }
            let context = self.context(screen)?;
            self.runtime
                .block_on(carry_out(&context, &invocation))
                .map_err(at_line)?;
        }
        Ok(())
    }

    /// A line as a command; help is given at once.
    fn understand(&self, line: &str) -> Result<Option<(Screen, Invocation)>, Failure> {
        let words = words::split(line).map_err(|why| Failure::usage(why, "help"))?;
        let (options, typed) = parse(&words)?;
        match typed {
            Typed::Nothing => Ok(None),
            Typed::Help(topic) => {
                self.screen.text(&help::help(&topic)?);
                Ok(None)
            }
            Typed::Command(invocation) => {
                let screen = Screen {
                    json: self.screen.json || options.json,
                    yes: self.screen.yes || options.yes,
                    ..self.screen
                };
                Ok(Some((screen, *invocation)))
            }
        }
    }
}

async fn carry_out(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    match invocation.verb() {
        Verb::ClusterCreate => cluster::create(context, invocation).await,
        Verb::ClusterJoin => join::join(context, invocation).await,
        Verb::ClusterConfig => cluster::config(context, invocation).await,
        Verb::ClusterMaster => cluster::master(context, invocation).await,
        Verb::ClusterRunningActions => actions::running(context).await,
        Verb::UpgradeStatus => upgrade::status(context).await,
        Verb::UpgradePlan => upgrade::plan(context, invocation).await,
        Verb::UpgradePaths => upgrade::paths(context, invocation).await,
        Verb::UpgradeFinalize => upgrade::finalize(context).await,
        Verb::UpgradeConfig => upgrade::config(context, invocation).await,
        Verb::UpgradeStart => upgrade::start(context, invocation).await,
        Verb::UpgradeWatch => upgrade::watch(context).await,
        Verb::UpgradePause => {
            let done = "No further node's turn begins; one that has begun is ended";
            upgrade::ask(context, "pause", done).await
        }
        Verb::UpgradeResume => upgrade::ask(context, "resume", "It goes on").await,
        Verb::UpgradeRollback => upgrade::rollback(context).await,
        Verb::UpgradeReport => upgrade::report(context).await,
        Verb::Explain => upgrade::explain(context, invocation),
        Verb::Retry => actions::retry(context, invocation).await,
        Verb::Abort => actions::abort(context, invocation).await,
        Verb::NodeMaintenanceOn => node::maintenance_on(context, invocation).await,
        Verb::NodeMaintenanceOff => node::maintenance_off(context, invocation).await,
        Verb::NodeEnslave => node::enslave(context, invocation).await,
        Verb::NodeRack => node::rack(context, invocation).await,
        Verb::NodeRemove => node::remove(context, invocation).await,
        Verb::NodeSnapshotCreate => snapshot::create(context, invocation).await,
        Verb::NodeSnapshotDelete => snapshot::delete(context, invocation).await,
        Verb::NodeSnapshotRestore => snapshot::restore(context, invocation).await,
        Verb::NodeSnapshotList => snapshot::list(context, invocation).await,
        Verb::TuneCluster => cluster::tune(context, invocation).await,
        Verb::TuneDatabase => database::tune(context, invocation).await,
        Verb::CreateDatabase => database::create(context, invocation).await,
        Verb::DeleteDatabase => database::delete(context, invocation).await,
        Verb::Failover => failover::failover(context, invocation).await,
        Verb::Migrate => migrate::migrate(context, invocation).await,
        Verb::Status => status::status(context, invocation).await,
        Verb::InfoCluster => info::cluster(context).await,
        Verb::InfoDatabase => info::database(context, invocation).await,
        Verb::InfoNode => info::node(context, invocation).await,
        Verb::TuneProxy => proxy::tune(context, invocation).await,
        Verb::InfoProxy => info::proxy(context, invocation).await,
        Verb::VerifyBalance => balance::verify(context, invocation).await,
        Verb::VerifyRackAware => racks::verify(context).await,
        // Handled where lines are read; on a command line they have nothing to do.
        Verb::Help | Verb::Exit => Ok(()),
    }
}
