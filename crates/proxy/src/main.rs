//! `dmcproxy`: without arguments the launcher, `dmcproxy server` the serving process.

use proxy::environment::Environment;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "usage: dmcproxy            start a server and end with it (run by supervisord)
       dmcproxy server     serve in this process
       dmcproxy --version | --help";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words[..] {
        [] => run(proxy::launcher::launch),
        ["server"] => run(|environment| proxy::server::serve(environment, false)),
        ["server", proxy::launcher::LAUNCHED] => {
            run(|environment| proxy::server::serve(environment, true))
        }
        ["--version"] => Environment::find().map(|found| {
            #[expect(clippy::print_stdout, reason = "the answer to --version")]
            {
                println!("dmcproxy {} ({})", found.version, found.build_id);
            }
        }),
        ["--help" | "-h"] => {
            #[expect(clippy::print_stdout, reason = "the answer to --help")]
            {
                println!("{USAGE}");
            }
            Ok(())
        }
        _ => Err(anyhow::anyhow!("{USAGE}")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "logging may not have begun")]
            {
                eprintln!("dmcproxy: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run(part: impl FnOnce(&Environment) -> anyhow::Result<()>) -> anyhow::Result<()> {
    // The allocator asks for huge pages. It uses some KiB here and there of each 2 MiB: nine tenths of what an idle
    // proxy had were zeros. Where the kernel has no huge pages there is nothing to turn off.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let environment = Environment::find()?;
    let _log = environment.log_to_stderr();
    part(&environment)
}
