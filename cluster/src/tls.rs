//! How client, scheduler and executors connect: each says what it is, and with certificates each
//! shows its own.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::extension::{EndpointOverrideFn, SessionConfigExt};
use clap::Args;
use datafusion::prelude::SessionConfig;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, ServerTlsConfig, Uri};

/// What our programs call themselves when they connect.
pub const AGENT: &str = concat!("tarmac/", env!("CARGO_PKG_VERSION"));

/// Certificates as PEM files: all three or none.
#[derive(Debug, Clone, Default, Args)]
pub struct TlsArgs {
    /// PEM file of the authority that signed the certificates of all programs of the cluster
    #[arg(long, env = "TARMAC_TLS_CA", global = true)]
    pub tls_ca: Option<PathBuf>,
    /// PEM file of this program's certificate
    #[arg(long, env = "TARMAC_TLS_CERT", global = true)]
    pub tls_cert: Option<PathBuf>,
    /// PEM file of its private key
    #[arg(long, env = "TARMAC_TLS_KEY", global = true)]
    pub tls_key: Option<PathBuf>,
}

/// How the programs of a cluster connect: in clear, or each showing a certificate.
#[derive(Clone, Default)]
pub struct Tls(Option<Pem>);

#[derive(Clone)]
struct Pem {
    ca: Vec<u8>,
    cert: Vec<u8>,
    key: Vec<u8>,
}

impl TlsArgs {
    /// Reads the files. Errors name the file.
    pub fn load(&self) -> Result<Tls> {
        let (Some(ca), Some(cert), Some(key)) = (&self.tls_ca, &self.tls_cert, &self.tls_key)
        else {
            return Ok(Tls(None));
        };
        let read = |path: &PathBuf| std::fs::read(path).with_context(|| path.display().to_string());
        Ok(Tls(Some(Pem { ca: read(ca)?, cert: read(cert)?, key: read(key)? })))
    }

    /// The same files, for the command line of another program.
    pub fn arguments(&self) -> impl Iterator<Item = OsString> {
        let files = [("ca", &self.tls_ca), ("cert", &self.tls_cert), ("key", &self.tls_key)];
        files.into_iter().flat_map(|(name, path)| {
            let path = path.clone().map(PathBuf::into_os_string);
            path.map(|path| [format!("--tls-{name}").into(), path]).into_iter().flatten()
        })
    }
}

impl Tls {
    /// Whether connections are encrypted.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// `https` or `http`.
    pub fn scheme(&self) -> &'static str {
        if self.is_on() { "https" } else { "http" }
    }

    /// Who starts tasks. With TLS the executors ask for them, because Ballista's executors cannot
    /// encrypt the port on which they would get them.
    pub fn scheduling_policy(&self) -> TaskSchedulingPolicy {
        match self.is_on() {
            true => TaskSchedulingPolicy::PullStaged,
            false => TaskSchedulingPolicy::PushStaged,
        }
    }

    /// For servers: shows our certificate and asks for one of the same authority.
    pub fn server_config(&self) -> Option<ServerTlsConfig> {
        let pem = self.0.as_ref()?;
        let identity = Identity::from_pem(&pem.cert, &pem.key);
        let ca = Certificate::from_pem(&pem.ca);
        Some(ServerTlsConfig::new().identity(identity).client_ca_root(ca))
    }

    /// For Ballista's clients: their endpoints with our name, encrypted with TLS.
    pub fn endpoint(&self, agent: impl Into<String>) -> EndpointOverrideFn {
        let (pem, agent) = (self.0.clone(), agent.into());
        Arc::new(move |endpoint: Endpoint| {
            let Some(pem) = &pem else { return Ok(endpoint.user_agent(agent.as_str())?) };
            let config = ClientTlsConfig::new()
                .identity(Identity::from_pem(&pem.cert, &pem.key))
                .ca_certificate(Certificate::from_pem(&pem.ca));
            // an endpoint whose address says http is not encrypted, whatever its configuration
            let mut parts = endpoint.uri().clone().into_parts();
            parts.scheme = Some("https".parse()?);
            let endpoint = Endpoint::from(Uri::from_parts(parts)?).user_agent(agent.as_str())?;
            Ok(endpoint.tcp_nodelay(true).tls_config(config)?)
        })
    }

    /// A session's configuration with these connections.
    pub fn configure(&self, config: SessionConfig) -> SessionConfig {
        config
            .with_ballista_use_tls(self.is_on())
            .with_ballista_override_create_grpc_client_endpoint(self.endpoint(AGENT))
    }

    /// For the scheduler's REST interface.
    pub fn http_client(&self) -> Result<reqwest::Client> {
        let mut client = reqwest::Client::builder();
        if let Some(pem) = &self.0 {
            let identity = [pem.cert.as_slice(), b"\n", pem.key.as_slice()].concat();
            client = client
                .add_root_certificate(reqwest::Certificate::from_pem(&pem.ca)?)
                .identity(reqwest::Identity::from_pem(&identity)?)
                .https_only(true);
        }
        Ok(client.build()?)
    }
}
