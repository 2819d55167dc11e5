//! Download of one file into the cache: resumed where it broke, and checked before anyone can take it for whole.
//!
//! Bytes are collected in `blobs/<hash>.incomplete`. Only when size and hash are right does the file get the name
//! `blobs/<hash>`, by one rename; a process killed at any moment leaves an `.incomplete` file that the next one
//! resumes and checks. A lock keeps two processes from writing to it at once.

use super::cache::{RepoCache, at, make_parent};
use super::client::{Client, Metadata, text};
use super::error::HubError;
use super::name::Name;
use super::progress::Transfer;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;
use ureq::Body;
use ureq::http::Response;

/// How often one file is tried in a call.
const ATTEMPTS: u32 = 5;

/// Brings files of one commit into the cache.
pub(super) struct Fetcher<'a> {
    pub(super) client: &'a Client,
    pub(super) cache: &'a RepoCache,
    pub(super) name: &'a Name,
    pub(super) commit: &'a str,
    /// Wait before the second attempt; each further one waits twice as long.
    pub(super) first_wait: Duration,
}

/// A file on its way.
struct Job<'a> {
    file: &'a str,
    url: String,
    part: PathBuf,
    size: u64,
}

impl Fetcher<'_> {
    /// Downloads `file` unless its content is here, and links it into the snapshot.
    pub(super) fn fetch(&self, file: &str) -> Result<(), HubError> {
        let url = self.client.file_url(self.name, self.commit, file);
        let about = self.patiently(|| self.client.metadata(&url))?;
        let blob = self.cache.blob(about.checksum.digits());
        if !is_whole(&blob, about.size) {
            let _lock = self.cache.lock(about.checksum.digits(), file)?;
            if !is_whole(&blob, about.size) {
                let part = blob.with_added_extension("incomplete");
                self.download(&Job { file, url, part, size: about.size }, &about, &blob)?;
            }
        }
        self.cache.point(self.commit, file, about.checksum.digits())
    }

    fn download(&self, job: &Job<'_>, about: &Metadata, blob: &Path) -> Result<(), HubError> {
        make_parent(blob)?;
        self.patiently(|| self.transfer(job))?;
        check(job, about)?;
        fs::rename(&job.part, blob).map_err(at(blob))
    }

    /// Repeats what fails for a passing reason.
    fn patiently<T>(&self, mut attempt: impl FnMut() -> Result<T, HubError>) -> Result<T, HubError> {
        let mut wait = self.first_wait;
        for _ in 1..ATTEMPTS {
            match attempt() {
                Err(error) if error.is_passing() => sleep(wait),
                done => return done,
            }
            wait *= 2;
        }
        attempt().map_err(|error| match error.is_passing() {
            true => HubError::GaveUp { attempts: ATTEMPTS, last: Box::new(error) },
            false => error,
        })
    }

    /// Adds to the `.incomplete` file what it lacks.
    fn transfer(&self, job: &Job<'_>) -> Result<(), HubError> {
        let part = File::options().create(true).append(true).open(&job.part).map_err(at(&job.part))?;
        let have = part.metadata().map_err(at(&job.part))?.len();
        if have == job.size {
            return Ok(());
        }
        // More than the whole file cannot be a part of it.
        let have = if have > job.size { 0 } else { have };
        let response = self.client.open(&job.url, have)?;
        let start = start(job, have, &response)?;
        part.set_len(start).map_err(at(&job.part))?;
        receive(job, part, start, response)
    }
}

/// Whether a blob is complete. Its hash was checked before it got its name.
fn is_whole(blob: &Path, size: u64) -> bool {
    fs::metadata(blob).is_ok_and(|about| about.len() == size)
}

/// The byte that a response begins with, after a look at the size it claims.
fn start(job: &Job<'_>, asked: u64, response: &Response<Body>) -> Result<u64, HubError> {
    let headers = response.headers();
    if response.status() != 206 {
        let length = text(headers, "content-length").and_then(|length| length.parse().ok());
        return length.map_or(Ok(()), |length| same_size(job, length)).map(|()| 0);
    }
    let range = text(headers, "content-range").unwrap_or_default();
    let (start, total) = content_range(range).ok_or_else(|| wrong_range(job, asked, range))?;
    total.map_or(Ok(()), |total| same_size(job, total))?;
    if start == asked { Ok(start) } else { Err(wrong_range(job, asked, range)) }
}

/// First byte and, unless it is `*`, size of the whole in `bytes <first>-<last>/<whole>`.
fn content_range(header: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = header.strip_prefix("bytes ")?.split_once('/')?;
    let start = range.split_once('-')?.0.trim().parse().ok()?;
    Some((start, total.trim().parse().ok()))
}

fn wrong_range(job: &Job<'_>, asked: u64, range: &str) -> HubError {
    let why = format!("it was asked for the bytes from {asked} on and sends `Content-Range: {range}`");
    HubError::Answer { url: job.url.clone(), why }
}

fn same_size(job: &Job<'_>, found: u64) -> Result<(), HubError> {
    match found == job.size {
        true => Ok(()),
        false => Err(damaged(job, format!("{} bytes", job.size), format!("{found} bytes"))),
    }
}

/// Says that the bytes are wrong, and keeps none of them.
fn damaged(job: &Job<'_>, expected: String, found: String) -> HubError {
    match fs::remove_file(&job.part) {
        Err(error) if error.kind() != ErrorKind::NotFound => at(&job.part)(error),
        _ => HubError::Damaged { file: job.file.to_owned(), expected, found },
    }
}

fn receive(job: &Job<'_>, mut part: File, start: u64, response: Response<Body>) -> Result<(), HubError> {
    let transfer = Transfer::begin(job.file, job.size, start);
    let mut body = response.into_body().into_reader();
    let mut buffer = vec![0; 1 << 16];
    let mut have = start;
    let broken = |have, why: String| HubError::Broken { file: job.file.to_owned(), have, size: job.size, why };
    loop {
        let count = body.read(&mut buffer).map_err(|error| broken(have, error.to_string()))?;
        have += count as u64;
        match count {
            0 if have < job.size => return Err(broken(have, "the server closed it".into())),
            0 => return Ok(()),
            _ if have > job.size => return same_size(job, have),
            _ => part.write_all(&buffer[..count]).map_err(at(&job.part))?,
        }
        transfer.advance(count as u64);
    }
}

/// Compares size and hash of what has arrived with what was announced, and makes sure that it is on the disk.
fn check(job: &Job<'_>, about: &Metadata) -> Result<(), HubError> {
    let part = File::open(&job.part).map_err(at(&job.part))?;
    same_size(job, part.metadata().map_err(at(&job.part))?.len())?;
    let found = about.checksum.of_file(&job.part).map_err(at(&job.part))?;
    if found != about.checksum {
        return Err(damaged(job, about.checksum.to_string(), found.to_string()));
    }
    part.sync_all().map_err(at(&job.part))
}
