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

/// `ACL SETUSER` of the user by which proxies get promises.
pub(crate) fn keeper(user: &str, password: &Secret) -> Vec<String> {
    let password = password_rule(password);
    words(&[
        "ACL",
        "SETUSER",
        user,
        "reset",
        "resetchannels",
        "on",
        &password,
        "+ping",
    ])
}

/// `ACL SETUSER` that takes away the right to write; works on live connections too.
pub(crate) fn no_writes(user: &str) -> Vec<String> {
    words(&["ACL", "SETUSER", user, "-@write"])
}

/// The epoch that a user belongs to.
pub(crate) fn epoch_of(user: &str) -> Option<Epoch> {
    let (_, number) = user.rsplit_once("@e")?;
    number.parse().ok().map(Epoch)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_of_users() {
        assert_eq!(epoch_of("proxy@e3"), Some(Epoch(3)));
        assert_eq!(epoch_of("app@e3@e5"), Some(Epoch(5)));
        for no in ["cnm", "repl", "default", "x@ex", "proxy@e"] {
            assert_eq!(epoch_of(no), None, "{no}");
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
