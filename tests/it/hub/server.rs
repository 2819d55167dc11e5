//! A small model hub for tests: the answers, headers and redirects of the real one, and its failures on demand.
//!
//! Two listeners: the hub itself, and the storage ("CDN") that large files are redirected to, which is another
//! origin because its port differs. Every request is recorded.

use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

/// What goes wrong with one answer that carries a file.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The connection is closed after so many bytes of the body.
    Cut(usize),
    /// The last byte is another one.
    WrongByte,
    /// The file is one byte longer than announced.
    TooLong,
    /// This status, without the file.
    Status(u16),
}

/// One file of the repository.
#[derive(Clone)]
pub struct Stored {
    pub bytes: Vec<u8>,
    /// Kept in the storage, and known by its SHA-256.
    pub large: bool,
}

impl Stored {
    pub fn etag(&self) -> String {
        match self.large {
            true => hexadecimal(&Sha256::digest(&self.bytes)),
            false => {
                let start = format!("blob {}\0", self.bytes.len());
                hexadecimal(&Sha1::new().chain_update(start).chain_update(&self.bytes).finalize())
            }
        }
    }
}

/// A request that arrived.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
    /// Whether it went to the storage.
    pub cdn: bool,
}

/// What the server holds and how it behaves; may be changed at any time.
#[derive(Default)]
pub struct State {
    pub repo: String,
    /// Former name of the repository, from which requests are redirected.
    pub former: Option<String>,
    /// Server that those redirects lead to, if not this one by a relative address.
    pub former_leads_to: Option<String>,
    /// Revision to commit.
    pub revisions: BTreeMap<String, String>,
    pub files: BTreeMap<String, Stored>,
    /// Faults of the next answers that carry a file, in order.
    pub faults: VecDeque<Fault>,
    /// The fault of all answers after those.
    pub always: Option<Fault>,
    pub ignore_range: bool,
    /// Sent in place of a file's hash, as it stands.
    pub etag: Option<String>,
    /// Sent in place of the range of a partial answer.
    pub content_range: Option<String>,
    /// Required of every request to the hub.
    pub token: Option<String>,
    pub requests: Vec<Request>,
}

pub struct Server {
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    hub: SocketAddr,
    cdn: SocketAddr,
}

impl Server {
    /// Serves one repository, whose branch `main` is at `commit`.
    pub fn start(repo: &str, commit: &str) -> Self {
        let revisions = [("main", commit), (commit, commit)].map(|(name, commit)| (name.into(), commit.into()));
        let state = State { repo: repo.into(), revisions: revisions.into(), ..State::default() };
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (hub, cdn) = (bind(), bind());
        let server = Self {
            state: Arc::new(Mutex::new(state)),
            stop: Arc::default(),
            hub: hub.local_addr().unwrap(),
            cdn: cdn.local_addr().unwrap(),
        };
        server.serve(hub, false);
        server.serve(cdn, true);
        server
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.hub)
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Adds a file; a large one is served by the storage.
    pub fn put(&self, path: &str, bytes: &[u8], large: bool) -> &Self {
        self.state().files.insert(path.into(), Stored { bytes: bytes.into(), large });
        self
    }

    /// The requests since the last call.
    pub fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state().requests)
    }

    fn serve(&self, listener: TcpListener, cdn: bool) {
        let (state, stop, storage) = (Arc::clone(&self.state), Arc::clone(&self.stop), self.cdn);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (state, Ok(stream)) = (Arc::clone(&state), stream) else { continue };
                // A client that goes away early is no failure of the server's.
                thread::spawn(move || drop(answer(stream, &state, cdn, storage)));
            }
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for address in [self.hub, self.cdn] {
            drop(TcpStream::connect(address));
        }
    }
}

struct Reply {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// Bytes of the body after which the connection is closed.
    cut: usize,
}

impl Reply {
    fn new(status: u16, body: Vec<u8>) -> Self {
        Self { status, headers: Vec::new(), body, cut: usize::MAX }
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn write(&self, stream: &mut TcpStream, head: bool) -> std::io::Result<()> {
        write!(stream, "HTTP/1.1 {} X\r\nConnection: close\r\nContent-Length: {}\r\n", self.status, self.body.len())?;
        for (name, value) in &self.headers {
            write!(stream, "{name}: {value}\r\n")?;
        }
        stream.write_all(b"\r\n")?;
        if !head {
            stream.write_all(&self.body[..self.cut.min(self.body.len())])?;
        }
        stream.flush()
    }
}

fn answer(mut stream: TcpStream, state: &Mutex<State>, cdn: bool, storage: SocketAddr) -> std::io::Result<()> {
    let request = read_request(&stream, cdn)?;
    let reply = {
        let mut state = state.lock().unwrap();
        state.requests.push(request.clone());
        reply(&mut state, &request, storage)
    };
    reply.write(&mut stream, request.method == "HEAD")
}

fn read_request(stream: &TcpStream, cdn: bool) -> std::io::Result<Request> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    let mut words = first.split(' ').map(str::to_owned);
    let mut next = || words.next().unwrap_or_default();
    let (method, path) = (next(), next());
    let mut request = Request { method, path, range: None, authorization: None, cdn };
    for line in lines {
        let line = line?;
        match line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())) {
            Some((name, value)) if name == "range" => request.range = Some(value),
            Some((name, value)) if name == "authorization" => request.authorization = Some(value),
            Some(_) => {}
            None => break,
        }
    }
    Ok(request)
}

fn reply(state: &mut State, request: &Request, storage: SocketAddr) -> Reply {
    let path = request.path.split('?').next().unwrap_or_default();
    if request.cdn {
        let found = state.files.values().find(|file| path == format!("/{}", file.etag())).cloned();
        return found.map_or_else(|| Reply::new(404, Vec::new()), |file| content(state, request, &file));
    }
    let expected = state.token.as_ref().map(|token| format!("Bearer {token}"));
    if expected.is_some() && request.authorization != expected {
        return Reply::new(if request.authorization.is_some() { 403 } else { 401 }, Vec::new());
    }
    if let Some(former) = state.former.as_ref().filter(|former| path.contains(former.as_str())) {
        let to = state.former_leads_to.clone().unwrap_or_default();
        return Reply::new(307, Vec::new()).with("Location", to + &request.path.replace(former, &state.repo));
    }
    if let Some(revision) = path.strip_prefix(&format!("/api/models/{}/revision/", state.repo)) {
        return listing(state, &revision.replace("%2F", "/"));
    }
    match path.strip_prefix(&format!("/{}/resolve/", state.repo)).and_then(|rest| rest.split_once('/')) {
        Some((revision, file)) => resolve(state, request, revision, file, storage),
        None => missing("RepoNotFound"),
    }
}

fn missing(code: &str) -> Reply {
    Reply::new(404, Vec::new()).with("X-Error-Code", code)
}

fn listing(state: &State, revision: &str) -> Reply {
    let Some(commit) = state.revisions.get(revision) else { return missing("RevisionNotFound") };
    let siblings: Vec<_> = state.files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
    let body = serde_json::json!({ "id": state.repo, "sha": commit, "siblings": siblings });
    Reply::new(200, body.to_string().into_bytes()).with("Content-Type", "application/json")
}

fn resolve(state: &mut State, request: &Request, revision: &str, file: &str, storage: SocketAddr) -> Reply {
    let Some(commit) = state.revisions.get(revision).cloned() else { return missing("RevisionNotFound") };
    let Some(stored) = state.files.get(&unescaped(file)).cloned() else { return missing("EntryNotFound") };
    let etag = state.etag.clone().unwrap_or_else(|| format!("\"{}\"", stored.etag()));
    let reply = match stored.large {
        true => Reply::new(302, Vec::new())
            .with("Location", format!("http://{storage}/{}?signature=x", stored.etag()))
            .with("X-Linked-Etag", etag)
            .with("X-Linked-Size", stored.bytes.len().to_string())
            .with("ETag", "\"0123\""),
        false => content(state, request, &stored).with("ETag", etag),
    };
    reply.with("X-Repo-Commit", commit)
}

/// The bytes of a file, with whatever is to go wrong with them.
fn content(state: &mut State, request: &Request, file: &Stored) -> Reply {
    let mut bytes = file.bytes.clone();
    let mut cut = usize::MAX;
    let fault = (request.method == "GET").then(|| state.faults.pop_front().or(state.always)).flatten();
    match fault {
        Some(Fault::Status(status)) => return Reply::new(status, Vec::new()),
        Some(Fault::Cut(after)) => cut = after,
        Some(Fault::WrongByte) => bytes.last_mut().into_iter().for_each(|byte| *byte ^= 1),
        Some(Fault::TooLong) => bytes.push(0),
        None => {}
    }
    let start = request.range.as_ref().and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse().ok());
    let reply = match start {
        Some(start) if !state.ignore_range => {
            let range = format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len());
            let range = state.content_range.clone().unwrap_or(range);
            Reply::new(206, bytes.split_off(start)).with("Content-Range", range)
        }
        _ => Reply::new(200, bytes),
    };
    Reply { cut, ..reply }
}

/// `path` with every `%XX` as the byte that it stands for.
fn unescaped(path: &str) -> String {
    let mut parts = path.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(&part[..2], 16).unwrap());
        bytes.extend(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).unwrap()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
