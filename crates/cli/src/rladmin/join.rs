//! `cluster join`: the password goes out only to a cluster whose CA is the expected one.

use super::cluster::{bootstrap, confirm_address, node_identity};
use super::failure::Failure;
use super::grammar;
use super::parse::Invocation;
use super::password::password;
use super::session::Context;
use model::rest::{Bootstrap, BootstrapRequest, ClusterIdentity, Credentials};
use model::{ApiError, ErrorCode};
use std::path::Path;

/// `cluster join`.
///
/// # Errors
/// As REST answers; `fingerprint_mismatch` with what to do when no fingerprint was given and nobody
/// can be asked.
pub async fn join(context: &Context, invocation: &Invocation) -> Result<(), Failure> {
    confirm_address(context, invocation)?;
    let trusted_ca = invocation.text("trusted_ca").map(certificate).transpose()?;
    let ca_fingerprint = invocation
        .text("ca_fingerprint")
        .and_then(|text| grammar::fingerprint(text).ok());
    let secret = password(
        &context.screen,
        invocation.text("password"),
        "Password of the admin",
    )?;
    let mut request = BootstrapRequest {
        action: Some("join_cluster".to_owned()),
        cluster: ClusterIdentity {
            nodes: invocation.list("nodes").to_vec(),
            ..ClusterIdentity::default()
        },
        credentials: Credentials {
            username: invocation.owned("username"),
            password: Some(secret.expose().to_owned()),
            trusted_ca,
            ca_fingerprint,
        },
        node: node_identity(invocation),
    };
    let mut done = attempt(context, &request).await;
    if let Err(Failure::Api(error)) = &done
        && error.error_code == ErrorCode::FingerprintMismatch
        && request.credentials.ca_fingerprint.is_none()
        && request.credentials.trusted_ca.is_none()
        && let Some(found) = found_fingerprint(&error.description)
    {
        if !approved(context, invocation, &found)? {
            return Err(Failure::Other(
                "the fingerprint was not confirmed: the password was not sent, nothing was done"
                    .to_owned(),
            ));
        }
        request.credentials.ca_fingerprint = Some(found);
        done = attempt(context, &request).await;
    }
    let done = done?;
    if context.screen.json {
        return context.screen.object(&done);
    }
    if let Some(uid) = done.local_node_info.uid {
        context.screen.line(format!("This node is node:{uid}"));
    }
    Ok(())
}

async fn attempt(context: &Context, request: &BootstrapRequest) -> Result<Bootstrap, Failure> {
    context.screen.begin("Joining cluster... ");
    let done = bootstrap(context, "join_cluster", request).await;
    context.screen.progress(match &done {
        Ok(_) => "ok",
        Err(Failure::Api(e)) if e.error_code == ErrorCode::FingerprintMismatch => "stopped",
        Err(_) => "failed",
    });
    done
}

/// Asks whether the found fingerprint is the cluster's.
fn approved(context: &Context, invocation: &Invocation, found: &str) -> Result<bool, Failure> {
    let nodes = invocation.list("nodes").join(", ");
    if !context.screen.interactive() {
        return Err(ApiError::new(
            ErrorCode::FingerprintMismatch,
            format!(
                "no fingerprint was given, so the password was not sent. The cluster at {nodes} has \
                 {found}. If `rladmin info cluster` on a member shows the same, run the command \
                 again with: ca_fingerprint {found}"
            ),
        )
        .into());
    }
    context.screen.ask_yes(&format!(
        "The CA of the cluster at {nodes} has the SHA-256 fingerprint\n  {found}\n\
         Is it the one that `cluster create` printed (`rladmin info cluster` on a member shows it)?"
    ))
}

/// The first SHA-256 that a text names.
fn found_fingerprint(text: &str) -> Option<String> {
    // With colons or without.
    const LENGTHS: [usize; 2] = [95, 64];
    text.char_indices().find_map(|(start, _)| {
        let whole = !text[..start].ends_with(|c: char| c.is_ascii_hexdigit());
        let candidates = LENGTHS
            .iter()
            .filter_map(|length| text.get(start..start + length));
        candidates
            .filter(|_| whole)
            .find_map(|found| grammar::fingerprint(found).ok())
    })
}

/// A CA's certificate from a file.
fn certificate(path: &str) -> Result<String, Failure> {
    let text = crate::installation::read_bounded(Path::new(path))
        .map_err(|e| Failure::Other(format!("trusted_ca: cannot read {path}: {e}")))?;
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        return Err(Failure::Other(format!(
            "trusted_ca: {path} holds no certificate (PEM)"
        )));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::found_fingerprint;

    #[test]
    fn fingerprint_in_a_sentence() {
        let colons = vec!["AB"; 32].join(":");
        for text in [
            format!("the node's CA has {colons}, none was given"),
            format!("found: {}.", "ab".repeat(32)),
            format!("found:{colons}"),
        ] {
            assert_eq!(found_fingerprint(&text), Some(colons.clone()), "{text}");
        }
        assert_eq!(found_fingerprint("nothing here: abc"), None);
    }
}
