//! The client against a real supervisord.

use crate::bench::{engines_dir, eventually};
use agent::supervisord::{Supervisord, SupervisordError};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// supervisord's wheel, where the builds keep it.
fn wheel() -> PathBuf {
    if let Some(wheel) = std::env::var_os("MAINSTAY_SUPERVISOR_WHEEL") {
        return wheel.into();
    }
    let folder = engines_dir().join(".downloads");
    let found = fs::read_dir(&folder).ok().and_then(|entries| {
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths
            .filter(|path| path.extension().is_some_and(|e| e == "whl"))
            .find(|path| {
                path.file_name()
                    .is_some_and(|n| n.as_encoded_bytes().starts_with(b"supervisor-"))
            })
    });
    found.unwrap_or_else(|| {
        panic!(
            "no supervisor wheel in {}: run `cargo xtask engines`, or set MAINSTAY_SUPERVISOR_WHEEL",
            folder.display()
        )
    })
}

struct Daemon(Child);

impl Daemon {
    fn start(folder: &Path) -> Self {
        let unpacked = Command::new("python3")
            .args(["-m", "zipfile", "-e"])
            .arg(wheel())
            .arg(folder.join("lib"))
            .status()
            .unwrap();
        assert!(unpacked.success());
        let at = folder.display();
        let config = format!(
            "[unix_http_server]\nfile={at}/s.sock\n[supervisord]\nlogfile={at}/log\n\
             pidfile={at}/pid\nchildlogdir={at}\nnodaemon=true\n\
             [rpcinterface:supervisor]\n\
             supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n\
             [program:sleeper]\ncommand=sleep 600\nstartsecs=0\n\
             [program:idle]\ncommand=sleep 600\nautostart=false\n\
             [program:broken]\ncommand=false\nstartsecs=5\nstartretries=1000\n"
        );
        fs::write(folder.join("conf"), config).unwrap();
        let child = Command::new("python3")
            .args(["-m", "supervisor.supervisord", "-c"])
            .arg(folder.join("conf"))
            .env("PYTHONPATH", folder.join("lib"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It ends its programs first.
        crate::bench::kill(self.0.id(), rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_are_listed_started_and_stopped() {
    let folder = tempfile::Builder::new()
        .prefix("sup-")
        .tempdir_in("/tmp")
        .unwrap();
    let socket = folder.path().join("s.sock");
    let client = Supervisord::at(&socket, Duration::from_secs(20));
    let absent = client.processes().await;
    assert!(
        matches!(absent, Err(SupervisordError::Unreachable { .. })),
        "{absent:?}"
    );

    let _daemon = Daemon::start(folder.path());
    eventually("supervisord listens", || {
        std::os::unix::net::UnixStream::connect(&socket).is_ok()
    })
    .await;
    let status = |processes: &[model::observation::ServiceObservation], name: &str| {
        processes
            .iter()
            .find(|p| p.name == name)
            .map(|p| (p.status.clone(), p.pid))
            .unwrap()
    };
    let mut processes = client.processes().await.unwrap();
    while status(&processes, "broken").0 != "RESTARTING" {
        processes = client.processes().await.unwrap();
    }
    let names: Vec<&str> = processes
        .iter()
        .map(|process| process.name.as_str())
        .collect();
    assert_eq!(names, ["broken", "idle", "sleeper"]);
    let (running, first) = status(&processes, "sleeper");
    assert_eq!(running, "RUNNING");
    assert!(processes[2].start_time.is_some() && first.is_some());
    assert_eq!(status(&processes, "idle"), ("STOPPED".to_owned(), None));

    client.start("idle").await.unwrap();
    client.start("idle").await.unwrap();
    client.restart("sleeper").await.unwrap();
    let processes = client.processes().await.unwrap();
    assert_eq!(status(&processes, "idle").0, "RUNNING");
    let (running, second) = status(&processes, "sleeper");
    assert!(running == "RUNNING" && second.is_some() && second != first);
    client.stop("idle").await.unwrap();
    client.stop("idle").await.unwrap();
    assert_eq!(
        status(&client.processes().await.unwrap(), "idle").0,
        "STOPPED"
    );
    client.launch("idle").await.unwrap();
    client.launch("idle").await.unwrap();
    assert_ne!(
        status(&client.processes().await.unwrap(), "idle").0,
        "STOPPED"
    );
    assert!(!client.has_changed().await.unwrap());
    let config = folder.path().join("conf");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text + "\n[program:more]\ncommand=/bin/cat\n").unwrap();
    assert!(client.has_changed().await.unwrap());
    let unknown = client.start("no<such>&process").await;
    assert!(
        matches!(&unknown, Err(SupervisordError::UnknownProcess(name)) if name == "no<such>&process"),
        "{unknown:?}"
    );
}
