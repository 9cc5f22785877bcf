//! What a joining node says to a member: REST on 9443, before it has a certificate of its own.
//!
//! The member's certificate chain ends with the cluster's CA. The first connection only reads that
//! chain and sends nothing; the second one trusts that CA alone, and only then the password goes out.

use crate::internode;
use base64::Engine as _;
use bytes::Bytes;
use model::intent::{JoinGrant, JoinRequest};
use model::{ApiError, ErrorCode, Secret};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpSocket;

/// SHA-256 of a certificate (DER), upper-case hex with colons.
#[must_use]
pub fn fingerprint(certificate: &[u8]) -> String {
    let digest = Sha256::digest(certificate);
    digest
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect::<Vec<_>>()
        .join(":")
}

/// Fingerprint of the first certificate of a PEM text.
///
/// # Errors
/// When it holds none.
pub fn pem_fingerprint(pem: &str) -> anyhow::Result<String> {
    Ok(fingerprint(&internode::pem_certificates(pem)?[0]))
}

/// Whether two fingerprints are the same: colons, spaces and case do not count.
#[must_use]
pub fn same_fingerprint(one: &str, other: &str) -> bool {
    let plain = |text: &str| {
        text.chars()
            .filter(char::is_ascii_hexdigit)
            .collect::<String>()
            .to_ascii_lowercase()
    };
    plain(one).len() == 64 && plain(one) == plain(other)
}

/// Reads the certificate of the CA that a member shows. Nothing is sent.
///
/// # Errors
/// `connect_error`.
pub async fn presented_ca(
    source: IpAddr,
    member: SocketAddr,
) -> Result<CertificateDer<'static>, ApiError> {
    let seen = Arc::new(Recorder::default());
    let work = async {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&seen) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
        let socket = if member.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        socket.bind(SocketAddr::new(source, 0))?;
        let stream = socket.connect(member).await?;
        let name = ServerName::IpAddress(member.ip().into());
        tokio_rustls::TlsConnector::from(Arc::new(tls))
            .connect(name, stream)
            .await?;
        anyhow::Ok(())
    };
    let failed = |reason: String| {
        ApiError::new(
            ErrorCode::ConnectError,
            format!(
                "cannot reach https://{member}: {reason}. {}",
                ErrorCode::ConnectError.remedy()
            ),
        )
    };
    match tokio::time::timeout(Duration::from_secs(5), work).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(failed(format!("{error:#}"))),
        Err(_) => return Err(failed("no answer within 5 s".to_owned())),
    }
    let last = seen
        .last
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    last.ok_or_else(|| failed("it showed no certificate".to_owned()))
}

/// Asks a member to admit this node. The connection trusts `ca` alone.
///
/// # Errors
/// What the member answers; `access_denied` for a wrong user or password; `connect_error`.
pub async fn admit(
    source: IpAddr,
    member: SocketAddr,
    ca: &CertificateDer<'static>,
    user: &str,
    password: &Secret,
    request: &JoinRequest,
) -> Result<JoinGrant, ApiError> {
    let failed = |reason: String| {
        ApiError::new(
            ErrorCode::ConnectError,
            format!("cannot join through https://{member}: {reason}"),
        )
    };
    let client = trusting(source, ca).map_err(|e| failed(format!("{e:#}")))?;
    let login =
        base64::engine::general_purpose::STANDARD.encode(format!("{user}:{}", password.expose()));
    let body = serde_json::to_vec(request).map_err(|e| failed(e.to_string()))?;
    let response = client
        .post(format!("https://{member}/v1/internal/admit"))
        .header("authorization", format!("Basic {login}"))
        .header("content-type", "application/json")
        .timeout(Duration::from_secs(30))
        .body(Bytes::from(body))
        .send()
        .await
        .map_err(|e| failed(format!("{e:?}")))?;
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let body = response.bytes().await.map_err(|e| failed(e.to_string()))?;
    if status == 401 || status == 403 {
        return Err(ApiError::new(
            ErrorCode::AccessDenied,
            format!(
                "{member} refused the user or its password: {}",
                ErrorCode::AccessDenied.remedy()
            ),
        ));
    }
    crate::local::Answer {
        status,
        headers,
        body,
    }
    .json()
}

fn trusting(source: IpAddr, ca: &CertificateDer<'static>) -> anyhow::Result<reqwest::Client> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.clone())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .local_address(source)
        .connect_timeout(Duration::from_secs(5))
        .no_proxy()
        .build()?)
}

/// Keeps the last certificate of the chain; judges nothing.
#[derive(Debug, Default)]
struct Recorder {
    last: Mutex<Option<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let last = intermediates
            .last()
            .unwrap_or(end_entity)
            .clone()
            .into_owned();
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(last);
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_as_people_type_them() {
        let mine = fingerprint(b"x");
        assert_eq!(mine.len(), 95);
        assert!(same_fingerprint(
            &mine,
            &mine.to_lowercase().replace(':', "")
        ));
        assert!(!same_fingerprint(&mine, &fingerprint(b"y")));
        assert!(!same_fingerprint("", ""));
    }
}
