//! The certificate that is shown, and its change without a restart.

use crate::http::{Trust, connect};
use crate::served::{Served, until};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// A CA that signs certificates for tests.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    pub(crate) fn certificate(&self) -> String {
        self.certificate.clone()
    }

    /// Chain (leaf, then CA) and key.
    fn sign(&self, address: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![address.to_owned()]).unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap().pem();
        (format!("{leaf}{}", self.certificate), key.serialize_pem())
    }
}

async fn trusted(served: &Served, authority: &Authority) -> bool {
    let trust = Trust::Authority(&authority.certificate);
    connect(served.config.https_address(), trust, b"http/1.1")
        .await
        .is_ok()
}

#[tokio::test]
async fn the_clusters_certificate_is_shown_as_soon_as_it_is_there() {
    let served = Served::start(None).await;
    let authority = Authority::new();
    let folder = served.config.certificates_dir();
    let key = folder.join("api_selfsigned_key.pem");
    assert_eq!(
        fs::metadata(&key).unwrap().permissions().mode() & 0o777,
        0o600
    );
    assert!(!trusted(&served, &authority).await);

    let (chain, key) = authority.sign(&served.config.address.to_string());
    // A certificate without its key, then with a key that is not its own: the old one stays.
    fs::write(folder.join("api_cert.pem"), &chain).unwrap();
    fs::write(
        folder.join("api_key.pem"),
        KeyPair::generate().unwrap().serialize_pem(),
    )
    .unwrap();
    assert!(!trusted(&served, &authority).await);
    fs::write(folder.join("api_key.pem"), key).unwrap();
    until("the CA's chain is shown", async || {
        trusted(&served, &authority).await
    })
    .await;

    let stream = connect(
        served.config.https_address(),
        Trust::Authority(&authority.certificate),
        b"http/1.1",
    );
    let stream = stream.await.unwrap();
    let shown = stream.get_ref().1.peer_certificates().unwrap().len();
    assert_eq!(shown, 2, "a joining node reads the CA from the chain");
    drop(stream);

    // Another CA, in place.
    let second = Authority::new();
    let (chain, key) = second.sign(&served.config.address.to_string());
    fs::write(folder.join("api_key.pem"), key).unwrap();
    fs::write(folder.join("api_cert.pem"), chain).unwrap();
    until("the second CA's chain is shown", async || {
        trusted(&served, &second).await
    })
    .await;
    served.stop().await;
}

#[tokio::test]
async fn a_certificate_that_is_there_at_the_start_is_used_and_a_broken_one_does_not_stop_us() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("api_cert.pem"), "no certificate").unwrap();
    fs::write(folder.path().join("api_key.pem"), "no key").unwrap();
    let address = "127.0.0.1".parse().unwrap();
    let loaded = api::certificates::Certificates::load(folder.path().to_owned(), address);
    assert!(loaded.is_ok());
    assert!(folder.path().join("api_selfsigned_cert.pem").exists());

    let nowhere = folder.path().join("missing");
    assert!(
        api::certificates::Certificates::load(nowhere, address).is_ok(),
        "kept in memory"
    );
}
