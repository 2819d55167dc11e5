//! Where the cache is, which server is asked and with what right: the environment variables of the hub's own tools.

use super::error::HubError;
use std::env;
use std::path::{Path, PathBuf};

const ENDPOINT: &str = "https://huggingface.co";

/// What a [`Hub`](super::Hub) works with.
#[derive(Clone)]
pub struct Settings {
    /// Folder of the cache, which holds `models--owner--repo` folders.
    pub cache: PathBuf,
    /// Address of the server, without a slash at its end.
    pub endpoint: String,
    /// Sent to the server at `endpoint` and to no other.
    pub token: Option<String>,
    /// Whether the cache alone is used and nothing is contacted.
    pub offline: bool,
    /// PEM file of the certificates to trust in place of the built-in ones, for networks that have their own.
    pub certificates: Option<PathBuf>,
}

impl Settings {
    /// Reads the environment.
    ///
    /// - cache: `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else in `huggingface` in `XDG_CACHE_HOME` or `~/.cache`
    /// - token: `HF_TOKEN`, else the file `token` in `HF_HOME` (where `hf auth login` puts it)
    /// - endpoint: `HF_ENDPOINT`, else <https://huggingface.co>
    /// - offline: `HF_HUB_OFFLINE` is `1`, `true`, `yes` or `on`
    /// - certificates: `SSL_CERT_FILE`
    pub fn from_env() -> Result<Self, HubError> {
        Self::from_variables(&|name| env::var(name).ok().filter(|value| !value.is_empty()), env::home_dir())
    }

    /// As [`Self::from_env`], with the variables that `get` knows and `user` for the home folder.
    pub fn from_variables(get: &dyn Fn(&str) -> Option<String>, user: Option<PathBuf>) -> Result<Self, HubError> {
        let home = home(get, user)?;
        let cache = get("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from);
        let token = get("HF_TOKEN").or_else(|| stored_token(&home));
        let endpoint = get("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.into());
        let certificates = get("SSL_CERT_FILE").map(PathBuf::from);
        let (endpoint, token) = (check_endpoint(endpoint)?, check_token(token)?);
        Ok(Self { cache, endpoint, token, offline: offline(get), certificates })
    }
}

fn home(get: &dyn Fn(&str) -> Option<String>, user: Option<PathBuf>) -> Result<PathBuf, HubError> {
    let in_cache = |cache: PathBuf| cache.join("huggingface");
    get("HF_HOME")
        .map(PathBuf::from)
        .or_else(|| get("XDG_CACHE_HOME").map(PathBuf::from).map(in_cache))
        .or_else(|| user.map(|user| in_cache(user.join(".cache"))))
        .ok_or_else(|| HubError::Setting {
            variable: "HF_HOME",
            why: "it is not set, and there is no home folder to put the cache of downloads in; set it to a folder"
                .into(),
        })
}

fn stored_token(home: &Path) -> Option<String> {
    hf_hub::Cache::new(home.join("hub")).token()
}

fn check_endpoint(endpoint: String) -> Result<String, HubError> {
    let endpoint = endpoint.trim().trim_end_matches('/');
    let address = endpoint.strip_prefix("https://").or_else(|| endpoint.strip_prefix("http://"));
    match address {
        Some(host) if !host.is_empty() => Ok(endpoint.to_owned()),
        _ => Err(HubError::Setting {
            variable: "HF_ENDPOINT",
            why: format!("`{endpoint}` is no address of a server; expected one such as {ENDPOINT}"),
        }),
    }
}

fn check_token(token: Option<String>) -> Result<Option<String>, HubError> {
    let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
    match token {
        Some(token) if !token.bytes().all(|byte| byte.is_ascii_graphic()) => Err(HubError::Setting {
            variable: "HF_TOKEN",
            why: "the token contains spaces or other characters that no token has; expected `hf_...`".into(),
        }),
        token => Ok(token),
    }
}

fn offline(get: &dyn Fn(&str) -> Option<String>) -> bool {
    get("HF_HUB_OFFLINE").is_some_and(|value| matches!(value.to_lowercase().as_str(), "1" | "true" | "yes" | "on"))
}
