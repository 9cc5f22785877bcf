//! A disk that fills up while the release is unpacked.

use crate::bench::{Bench, FIRST, bundle, is_root, traces};
use std::fs;
use std::process::Command;

/// A small file system of its own, taken away at the end.
struct Tmpfs(std::path::PathBuf);

impl Tmpfs {
    fn mount(path: std::path::PathBuf, options: &str) -> Self {
        fs::create_dir_all(&path).unwrap();
        mount(&[
            "-t",
            "tmpfs",
            "-o",
            options,
            "tmpfs",
            path.to_str().unwrap(),
        ]);
        Self(path)
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn mount(arguments: &[&str]) {
    assert!(
        Command::new("mount")
            .args(arguments)
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn a_full_disk_is_said_and_got_over() {
    if !is_root() {
        return;
    }
    let before = traces();
    let bench = Bench::new();
    let places = bench.places();
    let places: Vec<&str> = places.iter().map(String::as_str).collect();

    // Too small from the start: refused before anything is changed.
    let disk = Tmpfs::mount(bench.path("opt"), "size=8m,mode=755");
    let ran = bench.install_sh(&bundle(FIRST), &places);
    assert_eq!(ran.code, Some(1), "{}", ran.text);
    assert!(
        ran.text.contains("free,") && ran.text.contains("are needed"),
        "{}",
        ran.text
    );
    assert_eq!(before, traces());
    drop(disk);

    // Room by bytes, none by files: it fills up in the middle.
    let disk = Tmpfs::mount(bench.path("opt"), "size=512m,nr_inodes=20,mode=755");
    let ran = bench.install_sh(&bundle(FIRST), &places);
    assert_eq!(ran.code, Some(1), "{}", ran.text);
    assert!(ran.text.contains("step unpack: "), "{}", ran.text);
    assert!(ran.text.contains("No space left on device"), "{}", ran.text);
    assert!(!bench.install_dir().join("releases/1.0.0").exists());

    let larger = bench.path("opt").display().to_string();
    mount(&["-o", "remount,size=512m,nr_inodes=10k", &larger]);
    let ran = bench.install_sh(&bundle(FIRST), &[]);
    assert_eq!(ran.code, Some(0), "{}", ran.text);
    bench.uninstall();
    drop(disk);
    assert_eq!(before, traces());
}
