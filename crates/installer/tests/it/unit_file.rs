//! The units are such that systemd understands them.

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
    for (template, program) in [
        ("mainstay.service", "current/bin/mainstay-node"),
        ("mainstay-upgrade.service", "sbin/mainstay-install"),
    ] {
        no_fault(template, program);
    }
}

fn no_fault(template: &str, program: &str) {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join(program);
    fs::create_dir_all(program.parent().unwrap()).unwrap();
    fs::copy("/bin/true", program).unwrap();
    let text = fs::read_to_string(repository().join("packaging/templates").join(template))
        .unwrap()
        .replace("@ADDRESS@", "127.0.0.1")
        .replace("@INSTALL_ID@", "test")
        .replace("@INSTALL_DIR@", folder.path().to_str().unwrap())
        .replace("@CONFIG_DIR@", "/etc/opt/mainstay")
        .replace("@VAR_DIR@", "/var/opt/mainstay")
        .replace(
            "@RUNTIME_DIRECTORY@",
            "RuntimeDirectory=mainstay/sockets\nRuntimeDirectoryMode=0750\nRuntimeDirectoryPreserve=yes",
        )
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
