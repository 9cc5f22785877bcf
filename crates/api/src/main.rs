//! `cnm_http`: serves REST; `cnm_http openapi` prints the description of the API, `cnm_http
//! --version` the release.

use api::process::{self, Lock, Release};
use std::io::Write as _;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage: cnm_http [openapi | --version | --help]\n";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        [] => serve(),
        ["openapi"] => print(&api::openapi::document()),
        ["--version"] => {
            let Release { version, build_id } = Release::own();
            print(&format!("cnm_http {version} ({build_id})\n"))
        }
        ["--help" | "-h"] => print(USAGE),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cnm_http: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print(text: &str) -> anyhow::Result<()> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn serve() -> anyhow::Result<()> {
    log();
    // Only supervisord starts a second copy by itself; started by hand, the shell may go.
    if std::env::var_os("SUPERVISOR_ENABLED").is_some() {
        process::end_with_parent()?;
    }
    let config = process::read_config()?;
    let _lock = Lock::take(&config.run_file("cnm_http.lock"))?;
    // Fails only when a provider is installed already, which is just as well.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(4)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        api::run(config, Release::own(), shutdown).await
    })
}

/// Log lines to stderr; `RUST_LOG` changes what is said. hyper warns of every idle connection that
/// it closes, which is nothing to look at.
fn log() {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse_lossy(std::env::var("RUST_LOG").unwrap_or_else(|_| "info,hyper=error".to_owned()));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}
