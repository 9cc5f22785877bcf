//! What a terminal does to a run: Ctrl-C ends it with a word, and one that goes away ends nothing.

use jiff::ZonedDateTime;
use std::process::exit;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// What a shell says of a program that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

/// From here on, SIGINT and SIGTERM end this process with a word about what becomes of its work, and SIGHUP (a
/// connection to this host that breaks off in the middle of an upgrade) is passed over.
///
/// # Errors
/// When the signals cannot be had.
pub fn attend() -> std::io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate, mut hang_up) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        )
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => break,
                    _ = terminate.recv() => break,
                    _ = hang_up.recv() => {}
                }
            }
        });
        let now = ZonedDateTime::now().strftime("%Y-%m-%d %H:%M:%S%.3f");
        eprintln!(
            "\n{now} [x] Error: interrupted. What was begun is kept, and one of the node's daemons may be stopped \
             until it is ended: the same command goes on with it; after an interrupted upgrade, install.sh \
             --rollback takes it back"
        );
        exit(INTERRUPTED)
    });
    Ok(())
}
