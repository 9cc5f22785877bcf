//! supervisord's own upgrade, by a bundle that brings another version of its wheel: the same program, stamped anew.

use crate::bench::{
    Bench, FIRST, SECOND, bundle, change_signed, copy_of, is_root, ran, replace_signed,
};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

const OLD: &str = "4.3.0";
const NEW: &str = "4.3.1";
const PORT: u16 = 12_000;

/// Stamps the wheel with another version, and replaces one of its files by a text.
const STAMP: &str = "
import sys, zipfile
source, target, version, *other = sys.argv[1:]
texts = {'supervisor/version.txt': version, **dict([other] if other else [])}
with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, 'w') as new:
    for file in old.infolist():
        text = texts.get(file.filename)
        new.writestr(file.filename, old.read(file) if text is None else text)
";

fn stamp(source: &Path, target: &Path, other: &[&str]) {
    let status = Command::new("python3")
        .args(["-c", STAMP])
        .args([source, target])
        .arg(NEW)
        .args(other)
        .status()
        .unwrap();
    assert!(status.success());
}

/// The bundle brings another supervisord.
fn bring_another(bundle: &Path) {
    let name = |version| format!("release/supervisor/supervisor-{version}-py2.py3-none-any.whl");
    let (old, new) = (name(OLD), name(NEW));
    stamp(&bundle.join(&old), &bundle.join(&new), &[]);
    let bytes = fs::read(bundle.join(&new)).unwrap();
    fs::remove_file(bundle.join(&old)).unwrap();
    change_signed(bundle, |manifest| {
        let files = manifest["files"].as_object_mut().unwrap();
        let entry = files.remove(&old).unwrap();
        files.insert(new.clone(), entry);
        manifest["supervisor_version"] = NEW.into();
    });
    replace_signed(bundle, &new, &bytes);
    let tool = "release/bin/supervisorctl";
    let text = fs::read_to_string(bundle.join(tool)).unwrap();
    replace_signed(bundle, tool, text.replace(OLD, NEW).as_bytes());
}

/// A client of one connection that counts until it is told to end.
struct Counter {
    end: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Counter {
    fn start(address: Ipv4Addr) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let told = end.clone();
        let mut stream = TcpStream::connect((address, PORT)).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let thread = thread::spawn(move || {
            let mut replies = BufReader::new(stream.try_clone().unwrap());
            let mut count = 0;
            while !told.load(Ordering::Relaxed) {
                stream
                    .write_all(b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n")
                    .unwrap();
                let mut reply = String::new();
                replies.read_line(&mut reply).unwrap();
                count += 1;
                assert_eq!(reply, format!(":{count}\r\n"));
                thread::sleep(Duration::from_millis(1));
            }
            count
        });
        Self { end, thread }
    }

    /// How often it counted, each time with the right answer, over the connection that it had from the start.
    fn stop(self) -> u64 {
        self.end.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

#[test]
fn supervisord_is_replaced_and_comes_back_with_two_stamps_of_one_wheel() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    bench.install(&bundle(FIRST));
    bench.create_cluster();
    let port = PORT.to_string();
    let made = bench.rladmin(&["create", "db", "demo", "memory_size", "50MB", "port", &port]);
    assert_eq!(made.code, Some(0), "{}", made.text);
    let second = copy_of(&bundle(SECOND), &bench.path("second"));
    bring_another(&second);
    let install = |options: &[&str]| {
        let mut command = bench.command(&second);
        command
            .arg("-y")
            .args(options)
            .env("MAINSTAY_INSTALL_WATCH", "1");
        let ran = ran(&command.output().unwrap());
        assert_eq!(ran.code, Some(0), "{}", ran.text);
        ran.text
    };
    let version = || {
        let program = bench.install_dir().join("bin/supervisorctl");
        let output = Command::new(program).arg("version").output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    assert_eq!(version(), OLD);
    let engines = bench.engines();
    assert_eq!(engines.len(), 1);
    let counter = Counter::start(bench.address);

    let text = install(&[]);
    assert!(
        text.contains("supervisord is replaced by version 4.3.1"),
        "{text}"
    );
    assert_eq!(version(), NEW);
    let text = install(&["--rollback"]);
    assert!(
        text.contains("supervisord is replaced by version 4.3.0"),
        "{text}"
    );
    assert_eq!(version(), OLD);

    assert!(counter.stop() > 0);
    assert_eq!(bench.engines(), engines, "engines go on");
    a_broken_one_is_taken_back(&bench, &second, version, &engines);
    bench.uninstall();
}

/// A supervisord that does not run: found out, and the node goes back to the one before.
fn a_broken_one_is_taken_back(
    bench: &Bench,
    second: &Path,
    version: impl Fn() -> String,
    engines: &[u32],
) {
    let name = format!("release/supervisor/supervisor-{NEW}-py2.py3-none-any.whl");
    let ends = [
        "supervisor/supervisord.py",
        "raise SystemExit('out of order')\n",
    ];
    stamp(&second.join(&name), &bench.path("broken"), &ends);
    replace_signed(second, &name, &fs::read(bench.path("broken")).unwrap());
    let mut command = bench.command(second);
    command.arg("-y").env("MAINSTAY_INSTALL_PATIENCE", "8");
    let ran = ran(&command.output().unwrap());
    assert_eq!(ran.code, Some(3), "{}", ran.text);
    assert!(
        ran.text.contains("supervisord 4.3.1 does not start"),
        "{}",
        ran.text
    );
    assert_eq!(version(), OLD, "{}", ran.text);
    assert_eq!(bench.engines(), engines, "engines go on");
}
