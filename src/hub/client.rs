//! Requests to the hub, and what its refusals mean.
//!
//! Redirects are followed here and not by the HTTP library, because two things depend on them: the token goes to the
//! server named by the settings and nowhere else, and the hash of a large file is in the headers of the redirect
//! itself. Nothing is written to disk here.

use super::cache::is_commit;
use super::error::HubError;
use super::name::{Name, is_inside};
use super::settings::Settings;
use super::verify::Checksum;
use hf_hub::api::RepoInfo;
use hf_hub::{Repo, RepoType};
use std::fs;
use std::path::Path;
use std::time::Duration;
use ureq::http::{HeaderMap, Response, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, ResponseExt};

const MAX_REDIRECTS: usize = 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// A connection that sends nothing for so long is taken for broken.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(60);
/// Room for the description of a repository of some 100 000 files.
const MAX_LISTING_BYTES: u64 = 64 << 20;

pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

/// The files of a repository at one commit.
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) names: Vec<String>,
}

/// What the server says of a file before it is sent.
pub(super) struct Metadata {
    pub(super) checksum: Checksum,
    pub(super) size: u64,
}

#[derive(Clone, Copy, PartialEq)]
enum Method {
    /// Headers alone, up to the first that describe the file.
    Head,
    /// The body, from a byte on.
    Get(u64),
}

impl Client {
    pub(super) fn new(settings: &Settings) -> Result<Self, HubError> {
        let roots = settings.certificates.as_deref().map_or(Ok(RootCerts::WebPki), roots)?;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            // A compressed body has another length than the file, and ranges count the file's bytes.
            .accept_encoding("identity")
            .user_agent(concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_recv_response(Some(SILENCE_TIMEOUT))
            .timeout_per_read(Some(SILENCE_TIMEOUT));
        let endpoint = settings.endpoint.trim_end_matches('/').to_owned();
        Ok(Self { agent: config.build().into(), endpoint, token: settings.token.clone() })
    }

    /// Asks which commit a revision stands for, and which files it has.
    pub(super) fn listing(&self, name: &Name) -> Result<Listing, HubError> {
        let url = format!("{}/api/{}", self.endpoint, repo(name).api_url());
        let response = self.send(&url, Method::Get(0))?;
        if response.status() == 404 {
            return Err(self.absent(name, response.headers()));
        }
        let mut response = self.accept(response)?;
        let wrong = |why: String| HubError::Answer { url: url.clone(), why };
        let text = response.body_mut().with_config().limit(MAX_LISTING_BYTES).read_to_string();
        let text = text.map_err(|error| wrong(format!("the answer breaks off: {error}")))?;
        let info: RepoInfo = serde_json::from_str(&text)
            .map_err(|error| wrong(format!("the answer does not describe a repository: {error}")))?;
        let names: Vec<String> = info.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
        match names.iter().find(|name| !is_inside(name)) {
            Some(name) => Err(wrong(format!("the answer names a file outside the repository, `{name}`"))),
            None if !is_commit(&info.sha) => Err(wrong(format!("the answer's `sha` is no commit: `{}`", info.sha))),
            None => Ok(Listing { commit: info.sha, names }),
        }
    }

    /// Address of a file at one commit.
    pub(super) fn file_url(&self, name: &Name, commit: &str, file: &str) -> String {
        format!("{}/{}/resolve/{commit}/{}", self.endpoint, repo(name).url(), escaped(file))
    }

    /// Asks for a file's hash and size.
    pub(super) fn metadata(&self, url: &str) -> Result<Metadata, HubError> {
        let response = self.send(url, Method::Head)?;
        let redirected = response.status().is_redirection();
        let response = if redirected { response } else { self.accept(response)? };
        let headers = response.headers();
        let lacks = |what: &str| HubError::Answer { url: url.to_owned(), why: format!("the answer gives no {what}") };
        let etag = text(headers, "x-linked-etag").or_else(|| text(headers, "etag"));
        let checksum = etag.and_then(Checksum::from_etag).ok_or_else(|| lacks("hash of the file (ETag)"))?;
        let length = text(headers, "content-length").filter(|_| !redirected);
        let size = text(headers, "x-linked-size").or(length).and_then(|size| size.parse().ok());
        Ok(Metadata { checksum, size: size.ok_or_else(|| lacks("size of the file"))? })
    }

    /// Opens a file to be read from byte `from` on, if the server supports that.
    pub(super) fn open(&self, url: &str, from: u64) -> Result<Response<Body>, HubError> {
        let response = self.send(url, Method::Get(from))?;
        self.accept(response)
    }

    fn send(&self, url: &str, method: Method) -> Result<Response<Body>, HubError> {
        let mut url = url.to_owned();
        for _ in 0..MAX_REDIRECTS {
            let response = self.hop(&url, method)?;
            let Some(next) = redirect(&url, &response) else { return Ok(response) };
            let described = response.headers().contains_key("x-linked-etag");
            if method == Method::Head && (described || !self.is_home(&next)) {
                return Ok(response);
            }
            url = next;
        }
        Err(HubError::Answer { url, why: format!("more than {MAX_REDIRECTS} redirects") })
    }

    fn hop(&self, url: &str, method: Method) -> Result<Response<Body>, HubError> {
        let mut request = match method {
            Method::Head => self.agent.head(url),
            Method::Get(_) => self.agent.get(url),
        };
        if let Method::Get(from @ 1..) = method {
            request = request.header("Range", format!("bytes={from}-"));
        }
        if let Some(token) = self.token.as_ref().filter(|_| self.is_home(url)) {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        request.call().map_err(|error| HubError::Unreachable { host: host(url), why: reason(&error) })
    }

    fn is_home(&self, url: &str) -> bool {
        origin(url).is_some_and(|there| Some(there) == origin(&self.endpoint))
    }

    /// Passes on a response that carries what was asked for.
    fn accept(&self, response: Response<Body>) -> Result<Response<Body>, HubError> {
        // The query of a storage server's address is a signature, and long.
        let url = response.get_uri().to_string().split('?').next().unwrap_or_default().to_owned();
        match response.status().as_u16() {
            200 | 206 => Ok(response),
            status @ (401 | 403) if self.is_home(&url) => Err(HubError::Denied { url, status, why: self.denial() }),
            status => Err(HubError::Status { url, status }),
        }
    }

    fn denial(&self) -> String {
        let where_to = format!("{}/settings/tokens", self.endpoint);
        match self.token {
            None => format!(
                "no token was sent, and the repository is private or gated, or does not exist; set HF_TOKEN to a token \
                 from {where_to}, and accept the terms on a gated repository's page first"
            ),
            Some(_) => format!(
                "the token in HF_TOKEN (or stored by `hf auth login`) gives no access to the repository; is it \
                 expired, or the repository gated and its terms not accepted on its page? Tokens: {where_to}"
            ),
        }
    }

    /// Tells a missing repository from a missing revision.
    fn absent(&self, name: &Name, headers: &HeaderMap) -> HubError {
        let repo = name.repo.clone();
        let revision_is_missing = match text(headers, "x-error-code") {
            Some(code) => code == "RevisionNotFound",
            None => name.revision.is_some() && self.repo_exists(name),
        };
        match revision_is_missing {
            true => HubError::NoRevision { name: name.to_string(), repo, revision: name.revision().to_owned() },
            false => HubError::NoRepo { name: name.to_string(), repo, host: host(&self.endpoint) },
        }
    }

    fn repo_exists(&self, name: &Name) -> bool {
        let url = format!("{}/api/models/{}", self.endpoint, name.repo);
        self.send(&url, Method::Get(0)).is_ok_and(|response| response.status() == 200)
    }
}

/// The certificates in a PEM file, all that are trusted.
fn roots(path: &Path) -> Result<RootCerts, HubError> {
    let wrong = |why: String| HubError::Setting {
        variable: "SSL_CERT_FILE",
        why: format!("{}: {why}; expected a file of certificates in PEM form", path.display()),
    };
    let text = fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&text) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| wrong(error.to_string()))? {
            certificates.push(certificate);
        }
    }
    match certificates.is_empty() {
        true => Err(wrong("there is no certificate in it".into())),
        false => Ok(certificates.into()),
    }
}

/// What the connection says, and what helps against it.
fn reason(error: &ureq::Error) -> String {
    let text = error.to_string();
    match text.contains("certificate") {
        true => format!("{text} (if the network has certificates of its own, name their PEM file in SSL_CERT_FILE)"),
        false => text,
    }
}

fn repo(name: &Name) -> Repo {
    Repo::with_revision(name.repo.clone(), RepoType::Model, name.revision().to_owned())
}

/// The value of a header, if it is there once and is text.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// Where a redirect leads to, as a full address.
fn redirect(from: &str, response: &Response<Body>) -> Option<String> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return None;
    }
    let location = text(response.headers(), "location")?;
    if location.contains("://") && !location.starts_with('/') {
        return Some(location.to_owned());
    }
    let (scheme, authority) = origin(from)?;
    match location.strip_prefix("//") {
        Some(other) => Some(format!("{scheme}://{other}")),
        None => Some(format!("{scheme}://{authority}/{}", location.trim_start_matches('/'))),
    }
}

/// Scheme, and host with port, of an address.
fn origin(url: &str) -> Option<(String, String)> {
    let uri: Uri = url.parse().ok()?;
    Some((uri.scheme_str()?.to_lowercase(), uri.authority()?.as_str().to_lowercase()))
}

pub(super) fn host(url: &str) -> String {
    origin(url).map_or_else(|| url.to_owned(), |(_, authority)| authority)
}

/// `path` with everything but letters, digits, `-`, `.`, `_`, `~` and `/` written `%XX`.
fn escaped(path: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    path.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
