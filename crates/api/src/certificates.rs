//! The certificate of HTTPS, and its live reload.
//!
//! Once the node belongs to a cluster, `cnm_exec` has written `api_cert.pem` (the node's certificate,
//! then the CA's) and `api_key.pem`. Before that, a self-signed one of our own is shown.

use anyhow::{Context, anyhow};
use axum_server::tls_rustls::RustlsConfig;
use rcgen::{CertificateParams, DnType, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Name of a self-signed certificate, and its validity in years.
const SELF_SIGNED_NAME: &str = "mainstay node, not in a cluster yet";
const SELF_SIGNED_YEARS: i16 = 10;

/// The certificate that is served, and where it comes from.
pub struct Certificates {
    folder: PathBuf,
    address: IpAddr,
    tls: RustlsConfig,
    shown: Mutex<Shown>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates")
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

/// Which state of the files was acted on last, good or not.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Shown {
    Cluster(FileState, FileState),
    SelfSigned,
}

/// What changes when a file is written.
#[derive(Clone, Debug, Eq, PartialEq)]
struct FileState {
    inode: u64,
    length: u64,
    written: (i64, i64),
    changed: (i64, i64),
}

impl FileState {
    fn of(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|meta| Self {
            inode: meta.ino(),
            length: meta.len(),
            written: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

impl Certificates {
    /// Loads the certificate from `folder`; `address` is the node's, for a self-signed one.
    ///
    /// # Errors
    /// When no certificate can be made.
    pub fn load(folder: PathBuf, address: IpAddr) -> anyhow::Result<Self> {
        let shown = now(&folder);
        let loaded = match &shown {
            Shown::Cluster(..) => cluster_pair(&folder),
            Shown::SelfSigned => self_signed(&folder, address),
        };
        let (shown, config) = match loaded {
            Ok(config) => (shown, config),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(%error, "the node's certificate cannot be used, showing our own");
                (shown, self_signed(&folder, address)?)
            }
        };
        Ok(Self {
            folder,
            address,
            tls: RustlsConfig::from_config(Arc::new(config)),
            shown: Mutex::new(shown),
        })
    }

    /// What the server serves from.
    #[must_use]
    pub fn tls(&self) -> RustlsConfig {
        self.tls.clone()
    }

    /// Looks at the files for ever and serves new ones within a second. Connections that are open
    /// keep what they have.
    pub async fn follow(&self) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.look();
        }
    }

    /// Looks at the files once and serves new ones from now on.
    pub fn look(&self) {
        let found = now(&self.folder);
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if found == *shown {
            return;
        }
        let loaded = match &found {
            Shown::Cluster(..) => cluster_pair(&self.folder),
            Shown::SelfSigned => self_signed(&self.folder, self.address),
        };
        // A pair that does not fit may be half written: the next state of the files is looked at
        // again, and until then the old pair is shown.
        *shown = found;
        match loaded {
            Ok(config) => {
                self.tls.reload_from_config(Arc::new(config));
                tracing::info!(folder = %self.folder.display(), "a new certificate is in use");
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(%error, "the new certificate cannot be used, keeping the old one");
            }
        }
    }
}

fn now(folder: &Path) -> Shown {
    let state = |name| FileState::of(&folder.join(name));
    match (state("api_cert.pem"), state("api_key.pem")) {
        (Some(certificate), Some(key)) => Shown::Cluster(certificate, key),
        _ => Shown::SelfSigned,
    }
}

fn cluster_pair(folder: &Path) -> anyhow::Result<ServerConfig> {
    pair(&folder.join("api_cert.pem"), &folder.join("api_key.pem"))
}

fn pair(certificate: &Path, key: &Path) -> anyhow::Result<ServerConfig> {
    let chain = fs::read(certificate).with_context(|| format!("read {}", certificate.display()))?;
    let secret = fs::read(key).with_context(|| format!("read {}", key.display()))?;
    server_config(&chain, &secret)
        .with_context(|| format!("use {} and {}", certificate.display(), key.display()))
}

fn server_config(mut chain: &[u8], mut key: &[u8]) -> anyhow::Result<ServerConfig> {
    let chain = rustls_pemfile::certs(&mut chain).collect::<Result<Vec<_>, _>>()?;
    let key = rustls_pemfile::private_key(&mut key)?.ok_or_else(|| anyhow!("no private key"))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// The self-signed pair: the one that was made before, else a new one. It is kept so that an
/// operator who looked at it once sees the same after a restart.
fn self_signed(folder: &Path, address: IpAddr) -> anyhow::Result<ServerConfig> {
    let certificate_path = folder.join("api_selfsigned_cert.pem");
    let key_path = folder.join("api_selfsigned_key.pem");
    if let Ok(config) = pair(&certificate_path, &key_path) {
        return Ok(config);
    }
    let (certificate, key) = make_self_signed(address)?;
    let kept =
        write(&key_path, &key, 0o600).and_then(|()| write(&certificate_path, &certificate, 0o644));
    if let Err(error) = kept {
        tracing::warn!(%error, folder = %folder.display(), "the self-signed certificate is not kept");
    }
    server_config(certificate.as_bytes(), key.as_bytes())
}

fn make_self_signed(address: IpAddr) -> anyhow::Result<(String, String)> {
    let mut params = CertificateParams::new(vec![address.to_string(), "localhost".to_owned()])?;
    params
        .distinguished_name
        .push(DnType::CommonName, SELF_SIGNED_NAME);
    let today = jiff::Timestamp::now().to_zoned_datetime(jiff::tz::TimeZone::UTC);
    // The first of the month exists in every year.
    let month = u8::try_from(today.month())?;
    params.not_before = date_time_ymd(i32::from(today.year() - 1), month, 1);
    params.not_after = date_time_ymd(i32::from(today.year() + SELF_SIGNED_YEARS), month, 1);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

/// Replaces a file in one step.
fn write(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let new = path.with_extension("new");
    // A file of an earlier try could have another mode.
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&new)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&new, path)
}
