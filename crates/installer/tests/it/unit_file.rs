//! The unit is one that systemd understands.

use crate::bench::{ran, repository};
use std::fs;
use std::process::Command;

#[test]
fn systemd_finds_no_fault() {
    if Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .is_err()
    {
        eprintln!("not run: systemd-analyze is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let bin = folder.path().join("current/bin");
    fs::create_dir_all(&bin).unwrap();
    fs::copy("/bin/true", bin.join("mainstay-node")).unwrap();
    let text = fs::read_to_string(repository().join("packaging/templates/mainstay.service"))
        .unwrap()
        .replace("@INSTALL_ID@", "test")
        .replace("@INSTALL_DIR@", folder.path().to_str().unwrap())
        .replace("@OS_USER@", "root")
        .replace("@OS_GROUP@", "root");
    assert!(!text.contains('@'), "a placeholder is left:\n{text}");
    let unit = folder.path().join("mainstay-test.service");
    fs::write(&unit, text).unwrap();
    let output = Command::new("systemd-analyze")
        .arg("verify")
        .arg(&unit)
        .output()
        .unwrap();
    let ran = ran(&output);
    let own: Vec<&str> = ran
        .text
        .lines()
        .filter(|line| line.contains("mainstay-test.service"))
        .collect();
    assert!(ran.code == Some(0) && own.is_empty(), "{}", ran.text);
}
