//! The cluster's CA and the nodes' certificates.

use anyhow::Context as _;
use client::internode::NodeCertificates;
use model::node_config::NodeConfig;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

/// How long the CA's certificate is good for.
const CA_DAYS: u64 = 3_650;
/// How long a node's certificate is good for. Rotated well before.
const NODE_DAYS: u64 = 1_825;

/// A CA: certificate and key, PEM.
#[derive(Debug)]
pub struct Authority {
    /// Certificate.
    pub certificate: String,
    /// Key.
    pub key: String,
}

fn valid_for(params: &mut CertificateParams, days: u64) {
    let now = std::time::SystemTime::now();
    // An hour back, for nodes whose clocks run behind.
    params.not_before = (now - Duration::from_secs(3_600)).into();
    params.not_after = (now + Duration::from_secs(days * 86_400)).into();
}

impl Authority {
    /// A new CA for a cluster.
    ///
    /// # Errors
    /// When the cryptography fails.
    pub fn create(cluster: &str) -> anyhow::Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params
            .distinguished_name
            .push(DnType::CommonName, format!("{cluster} CA"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid_for(&mut params, CA_DAYS);
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    /// Signs a node's request for the given names, whatever names the request itself asks for.
    ///
    /// # Errors
    /// When the request is not one.
    pub fn sign(&self, csr: &str, names: &NodeNames) -> anyhow::Result<String> {
        let key = KeyPair::from_pem(&self.key).context("read the CA's key")?;
        let issuer = Issuer::from_ca_cert_pem(&self.certificate, key).context("read the CA")?;
        let mut request =
            CertificateSigningRequestParams::from_pem(csr).context("read the signing request")?;
        request.params = names.params()?;
        Ok(request.signed_by(&issuer)?.pem())
    }
}

/// Names in a node's certificate.
#[derive(Clone, Debug)]
pub struct NodeNames {
    /// `node:<uid>`, or a word before it is known.
    pub common_name: String,
    /// Its address.
    pub address: String,
    /// Host and cluster names.
    pub dns: Vec<String>,
}

impl NodeNames {
    fn params(&self) -> anyhow::Result<CertificateParams> {
        let mut names: Vec<String> = vec![self.address.clone()];
        names.extend(self.dns.iter().filter(|n| !n.is_empty()).cloned());
        names.dedup();
        let mut params = CertificateParams::new(names)?;
        params
            .distinguished_name
            .push(DnType::CommonName, self.common_name.as_str());
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        valid_for(&mut params, NODE_DAYS);
        Ok(params)
    }
}

/// A new key and the request to sign it, both PEM.
///
/// # Errors
/// When the cryptography fails.
pub fn signing_request(names: &NodeNames) -> anyhow::Result<(String, String)> {
    let key = KeyPair::generate()?;
    let request = names.params()?.serialize_request(&key)?;
    Ok((key.serialize_pem(), request.pem()?))
}

/// Writes a node's certificates: for internode traffic, and the same with the CA behind it for REST.
///
/// # Errors
/// When a file cannot be written.
pub fn write(config: &NodeConfig, certificates: &NodeCertificates) -> anyhow::Result<()> {
    let folder = config.certificates_dir();
    std::fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let chain = format!("{}{}", certificates.certificate, certificates.ca);
    replace(
        &folder.join("ca_cert.pem"),
        certificates.ca.as_bytes(),
        0o644,
    )?;
    replace(
        &folder.join("node_key.pem"),
        certificates.key.as_bytes(),
        0o640,
    )?;
    replace(
        &folder.join("node_cert.pem"),
        certificates.certificate.as_bytes(),
        0o644,
    )?;
    replace(
        &folder.join("api_key.pem"),
        certificates.key.as_bytes(),
        0o640,
    )?;
    replace(&folder.join("api_cert.pem"), chain.as_bytes(), 0o644)
}

/// Reads a node's certificates.
///
/// # Errors
/// When a file cannot be read.
pub fn read(config: &NodeConfig) -> anyhow::Result<NodeCertificates> {
    let folder = config.certificates_dir();
    let one = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    };
    Ok(NodeCertificates {
        ca: one("ca_cert.pem")?,
        certificate: one("node_cert.pem")?,
        key: one("node_key.pem")?,
    })
}

/// Replaces a file in one step: a reader, or a start after a crash, sees the old or the new one.
///
/// # Errors
/// When it cannot be written.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> anyhow::Result<()> {
    let partial = path.with_extension("partial");
    let work = || -> std::io::Result<()> {
        // A partial file of an earlier crash may have other permissions.
        match std::fs::remove_file(&partial) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&partial)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&partial, path)?;
        if let Some(folder) = path.parent() {
            std::fs::File::open(folder)?.sync_all()?;
        }
        Ok(())
    };
    work().with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signed_certificate_is_trusted_for_its_address_alone() {
        let ca = Authority::create("cluster.local").unwrap();
        let names = NodeNames {
            common_name: "node:1".to_owned(),
            address: "127.0.0.11".to_owned(),
            dns: vec!["host".to_owned(), "cluster.local".to_owned()],
        };
        let (_, csr) = signing_request(&NodeNames {
            address: "127.0.0.99".to_owned(),
            ..names.clone()
        })
        .unwrap();
        let pem = ca.sign(&csr, &names).unwrap();
        let der = client::internode::pem_certificates(&pem).unwrap();
        let (_, parsed) = x509_parser::parse_x509_certificate(&der[0]).unwrap();
        let text = format!(
            "{:?}",
            parsed.subject_alternative_name().unwrap().unwrap().value
        );
        assert!(text.contains("[127, 0, 0, 11]"), "{text}");
        assert!(!text.contains("[127, 0, 0, 99]"), "{text}");
    }
}
