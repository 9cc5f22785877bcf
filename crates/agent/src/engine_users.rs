//! ACL rules of the users inside an engine. The engine's ACL file holds `cnm` alone; the others are
//! made when a role is given, and are gone after a restart, as the role is.

use model::Epoch;
use model::documents::{EngineUsers, PROXY_RIGHTS, proxy_user};
use model::release::EngineId;
use model::secret::Secret;
use sha2::{Digest, Sha256};

/// The agent's own user.
pub(crate) const AGENT: &str = "cnm";
/// The user of replicas at their primary.
pub(crate) const REPLICATION: &str = "repl";

/// A password as an ACL rule: its hash, so that neither files nor the wire hold it.
pub(crate) fn password_rule(password: &Secret) -> String {
    format!("#{}", hex::encode(Sha256::digest(password.expose())))
}

/// Contents of the ACL file: nobody but `cnm`.
pub(crate) fn acl_file(users: &EngineUsers) -> String {
    format!(
        "user default off resetpass resetkeys resetchannels -@all\n\
         user {AGENT} on {} ~* &* +@all\n",
        password_rule(&users.cnm)
    )
}

/// `ACL SETUSER` of the replication user.
pub(crate) fn replication_user(users: &EngineUsers) -> Vec<String> {
    let password = password_rule(&users.repl);
    words(&[
        "ACL",
        "SETUSER",
        REPLICATION,
        "reset",
        "on",
        &password,
        "+psync",
        "+replconf",
        "+ping",
    ])
}

/// `ACL SETUSER` of the proxies' user of an epoch.
pub(crate) fn epoch_user(engine: &EngineId, epoch: Epoch, password: &Secret) -> Vec<String> {
    let name = proxy_user(epoch);
    let password = password_rule(password);
    let mut command = words(&["ACL", "SETUSER", &name, "reset", "on", &password]);
    command.extend(words(PROXY_RIGHTS));
    if engine.version.major >= 7 {
        command.push("+sort_ro".to_owned());
    }
    command
}

/// `ACL SETUSER` that takes away the right to write; works on live connections too.
pub(crate) fn no_writes(user: &str) -> Vec<String> {
    words(&["ACL", "SETUSER", user, "-@write"])
}

/// Whether a user belongs to another epoch than this one.
pub(crate) fn is_of_other_epoch(user: &str, epoch: Epoch) -> bool {
    user.rsplit_once("@e")
        .and_then(|(_, number)| number.parse::<u64>().ok())
        .is_some_and(|number| number != epoch.0)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_of_users() {
        assert!(is_of_other_epoch("proxy@e3", Epoch(4)));
        assert!(is_of_other_epoch("app@e3@e5", Epoch(4)));
        for no in ["proxy@e4", "cnm", "repl", "default", "x@ex", "proxy@e"] {
            assert!(!is_of_other_epoch(no, Epoch(4)), "{no}");
        }
    }

    #[test]
    fn the_file_holds_no_password() {
        let secret = |text: &str| Secret::new(text);
        let users = EngineUsers {
            cnm: secret("one"),
            repl: secret("two"),
            proxy: secret("three"),
        };
        let file = acl_file(&users);
        assert!(!file.contains("one") && !file.contains("repl") && !file.contains("proxy"));
        // SHA-256 of "one".
        assert!(file.contains("#7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"));
    }
}
