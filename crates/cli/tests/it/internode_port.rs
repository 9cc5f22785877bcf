//! An internode port, as it should be and as it should not.

use crate::installed_node::file;
use rustls::pki_types::PrivateKeyDer;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;

/// A CA and a certificate for 127.0.0.1 from it, in the node's folder.
pub(crate) fn certificates(folder: &Path) -> (String, String, String) {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut ca = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let node = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let pem = node.signed_by(&key, &issuer).unwrap().pem();
    for (name, text) in [
        ("ca_cert.pem", &ca_pem),
        ("node_cert.pem", &pem),
        ("node_key.pem", &key.serialize_pem()),
    ] {
        file(&folder.join(name), text, 0o640);
    }
    (ca_pem, pem, key.serialize_pem())
}

/// How an internode port may behave.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Port {
    /// As it should.
    Mutual,
    /// TLS, but everybody may come.
    Open,
    /// No TLS at all.
    Plain,
}

/// An internode port: answers what comes by a byte once the connection is as the port wants it.
pub(crate) fn internode(port: Port, ca: &str, certificate: &str, key: &str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let chain = client::internode::pem_certificates(certificate).unwrap();
    let pair = rcgen::KeyPair::from_pem(key).unwrap();
    let key = PrivateKeyDer::try_from(pair.serialize_der()).unwrap();
    let roots = Arc::new(client::internode::roots(ca).unwrap());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(roots, provider)
        .build()
        .unwrap();
    let builder = if port == Port::Mutual {
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let mut tls = builder.with_single_cert(chain, key).unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let tls = Arc::new(tls);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut first = [0];
            if port == Port::Plain {
                let _ = stream.read(&mut first).and_then(|_| stream.write_all(&[0]));
                continue;
            }
            let Ok(connection) = rustls::ServerConnection::new(Arc::clone(&tls)) else {
                continue;
            };
            let mut secure = rustls::StreamOwned::new(connection, stream);
            if secure.read(&mut first).is_ok() {
                let _ = secure.write_all(&[0]).and_then(|()| secure.flush());
            } else {
                // The alert that says why.
                let _ = secure.conn.write_tls(&mut secure.sock);
            }
        }
    });
    address
}
