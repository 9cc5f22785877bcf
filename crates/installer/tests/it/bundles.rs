//! A bundle is what was signed, or it is refused.

use crate::bench::{FIRST, bundle, copy_of, dist, newest_input};
use installer::bundle::Bundle;
use installer::keys;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn refusal(root: &Path, trusted: &[String]) -> String {
    format!("{:#}", Bundle::open(root, trusted).unwrap_err())
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let out = tempfile::tempdir().unwrap();
    let make = |version| fs::read(dist(version, out.path())).unwrap();
    // Somebody may be building meanwhile: then it was not the same input.
    let (first, second) = loop {
        let before = newest_input();
        let pair = (make("1.7.0"), make("1.7.0"));
        if newest_input() == before {
            break pair;
        }
    };
    assert!(first == second, "two bundles of one build differ");
    assert!(first != make("1.7.1"));
}

#[test]
fn spoiled_bundles_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = vec![keys::built_in().unwrap()];
    let copy = copy_of(&bundle(FIRST), &folder.path().join("copy"));
    Bundle::open(&copy, &trusted).unwrap();

    let rladmin = copy.join("release/bin/rladmin");
    let whole = fs::read(&rladmin).unwrap();
    let mut altered = whole.clone();
    altered[4242] ^= 1;
    fs::write(&rladmin, &altered).unwrap();
    assert!(refusal(&copy, &trusted).contains("release/bin/rladmin: altered"));

    fs::write(&rladmin, &whole[..whole.len() / 2]).unwrap();
    assert!(refusal(&copy, &trusted).contains("release/bin/rladmin: "));
    fs::write(&rladmin, &whole).unwrap();

    fs::set_permissions(&rladmin, fs::Permissions::from_mode(0o644)).unwrap();
    assert!(refusal(&copy, &trusted).contains("release/bin/rladmin: mode 0644, signed was 0755"));
    fs::set_permissions(&rladmin, fs::Permissions::from_mode(0o4755)).unwrap();
    fs::remove_file(&rladmin).unwrap();
    assert!(refusal(&copy, &trusted).contains("release/bin/rladmin: missing"));
    std::os::unix::fs::symlink("/bin/true", &rladmin).unwrap();
    assert!(refusal(&copy, &trusted).contains("release/bin/rladmin: not a regular file"));
    fs::remove_file(&rladmin).unwrap();
    fs::write(&rladmin, &whole).unwrap();
    fs::set_permissions(&rladmin, fs::Permissions::from_mode(0o700)).unwrap();
    Bundle::open(&copy, &trusted).expect("a strict umask of who unpacked it is no fault");

    let manifest = copy.join("manifest.json");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("\"1.0.0\"", "\"1.0.1\"")).unwrap();
    assert!(refusal(&copy, &trusted).contains("is refused"));
    fs::write(&manifest, &text[..text.len() / 2]).unwrap();
    assert!(refusal(&copy, &trusted).contains("is refused"));
    fs::remove_file(&manifest).unwrap();
    assert!(refusal(&copy, &trusted).contains("holds no whole bundle: manifest.json"));
}

#[test]
fn only_trusted_keys_count() {
    let folder = tempfile::tempdir().unwrap();
    let pair = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
    let file = folder.path().join("other.pub");
    fs::write(&file, pair.pk.to_box().unwrap().into_string()).unwrap();
    let other = keys::from_file(&file).unwrap();
    assert!(!keys::is_development(&other));
    let refused = refusal(&bundle(FIRST), &[other]);
    assert!(
        refused.contains("not signed with a key that is trusted here"),
        "{refused}"
    );

    fs::write(&file, "untrusted comment: nothing\n").unwrap();
    assert!(keys::from_file(&file).is_err());
}
