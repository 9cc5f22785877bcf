//! The checked-in description is the one that the code makes.

use serde_json::Value;
use std::collections::BTreeSet;

#[test]
fn checked_in_file_is_current() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../openapi/v1.json");
    let checked_in = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        checked_in == api::openapi::document(),
        "openapi/v1.json is stale: run `cargo xtask fix`, or `cargo run -p api -- openapi > \
         openapi/v1.json` at the root"
    );
}

#[test]
fn every_operation_has_a_name_of_its_own_and_says_what_it_does() {
    let document: Value = serde_json::from_str(&api::openapi::document()).unwrap();
    let mut names = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap();
            assert!(
                names.insert(name.to_owned()),
                "{name} twice, at {method} {path}"
            );
            assert!(operation["summary"].is_string(), "{method} {path}");
            assert!(
                operation["responses"]["default"].is_object(),
                "{method} {path}"
            );
        }
    }
    assert!(names.len() > 20, "{names:?}");
}
