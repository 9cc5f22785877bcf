//! `cnm_exec`: configuration store member, watchdog and hands of one node; on the primary node also
//! the controller.

use anyhow::Context as _;
use manager::exec::Exec;
use manager::local;
use manager::program::{Program, end_with_parent, only_copy};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the program says of itself.
const USAGE: &str = "cnm_exec: configuration store member, watchdog and hands of one node.\n\
    supervisord starts it; it takes no arguments but --help and --version.\n\
    Log level: environment variable MAINSTAY_LOG, for example MAINSTAY_LOG=debug";

fn main() -> ExitCode {
    if let Some(code) = asked_about_itself() {
        return code;
    }
    let filter = EnvFilter::try_from_env("MAINSTAY_LOG")
        .unwrap_or_else(|_| EnvFilter::new(format!("info,{}", store::LOG_FILTER)));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    abort_on_panic();
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("cannot go on: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Answers `--help` and `--version`, and refuses what it does not know: a daemon that starts because
/// somebody asked how to use it would be a trap.
fn asked_about_itself() -> Option<ExitCode> {
    match std::env::args().nth(1)?.as_str() {
        "--help" | "-h" => println!("{USAGE}"),
        "--version" => match Program::locate() {
            Ok(program) => println!("cnm_exec {} {}", program.version, program.build_id),
            Err(_) => println!("cnm_exec, not installed"),
        },
        other => {
            eprintln!("cnm_exec: unknown argument {other}\n{USAGE}");
            return Some(ExitCode::from(2));
        }
    }
    Some(ExitCode::SUCCESS)
}

/// A program with half of its tasks dead is worse than one that is started again.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
}

fn start() -> anyhow::Result<()> {
    let program = Program::locate()?;
    if std::env::var_os("SUPERVISOR_ENABLED").is_some() {
        end_with_parent()?;
    }
    let _lock = only_copy(&program.config, "cnm_exec")?;
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider is installed already"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(run(program))
}

async fn run(program: Program) -> anyhow::Result<()> {
    tracing::info!(
        version = program.version,
        build_id = program.build_id,
        "starting"
    );
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let exec = Box::pin(Exec::start(program)).await?;
    let result = tokio::select! {
        _ = term.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        result = local::serve(Arc::clone(&exec)) => result,
    };
    tracing::info!("ending; engines and the proxy go on");
    exec.shut_down().await;
    result
}
