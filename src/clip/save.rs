//! Writing clips to files and folders, so that what appears under the final name is always complete.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use super::Clip;
use crate::video::{self, Codec};

/// What a path's name asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Video(Codec),
    Gif,
    Frames,
}

impl Format {
    fn of(path: &Path) -> Result<Format> {
        if path.is_dir() {
            return Ok(Format::Frames);
        }
        let Some(extension) = path.extension() else { return Ok(Format::Frames) };
        match extension.to_string_lossy().to_ascii_lowercase().as_str() {
            "mp4" => Ok(Format::Video(Codec::H264)),
            "webp" => Ok(Format::Video(Codec::Webp)),
            "gif" => Ok(Format::Gif),
            other => bail!(
                "{}: clips are not written as `.{other}`; use .mp4, .webp, .gif, or a name without extension for a folder of PNG frames",
                path.display()
            ),
        }
    }
}

impl Clip {
    /// Writes the clip in the format that the name asks for: `.mp4` (H.264), `.webp` (animated) and `.gif`, both looping
    /// for ever, or, without extension or for a folder that exists, numbered PNG frames (`0000.png`, …).
    ///
    /// Folders above are made. The work is done beside the target under a name ending in `.partial` and renamed when it is
    /// complete and on disk; a file or a folder of frames that was there is replaced.
    pub fn save(&self, path: &Path) -> Result<()> {
        let format = Format::of(path)?;
        self.size().with_context(|| format!("{} was not written", path.display()))?;
        match format {
            // Checked here as well, so that the message names the target and not the staged file.
            Format::Video(Codec::H264) if self.frames[0].width % 2 + self.frames[0].height % 2 > 0 => {
                let (width, height) = self.size()?;
                Err(video::VideoError::OddSize { path: path.to_path_buf(), width, height }.into())
            }
            Format::Video(codec) => staged(path, |partial| Ok(video::encode(partial, &self.frames, self.fps, codec)?)),
            Format::Gif => staged(path, |partial| self.write_gif(partial)),
            Format::Frames => self.save_frames(path),
        }
    }

    fn write_frames(&self, folder: &Path) -> Result<()> {
        let digits = self.frames.len().saturating_sub(1).to_string().len().max(4);
        for (index, frame) in self.frames.iter().enumerate() {
            let file = folder.join(format!("{index:0digits$}.png"));
            frame.write_png(&file)?;
            sync(&file)?;
        }
        sync(folder)
    }

    fn save_frames(&self, folder: &Path) -> Result<()> {
        holds_only_frames(folder)?;
        let partial = partial_name(folder)?;
        make_parent(folder)?;
        remove(&partial)?;
        fs::create_dir(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
        if let Err(error) = self.write_frames(&partial) {
            let _ = fs::remove_dir_all(&partial);
            return Err(error.context(format!("{} was not written", folder.display())));
        }
        remove(folder)?;
        publish(&partial, folder)
    }
}

/// Finds out, before any work is done, whether a clip can be saved under `path`: that the format is known and this build
/// can write it, and that the folder is, or can be made, writable.
pub fn check_target(path: &Path) -> Result<()> {
    match Format::of(path)? {
        Format::Video(codec) => check_encoder(path, codec)?,
        Format::Gif => {}
        Format::Frames => holds_only_frames(path)?,
    }
    partial_name(path)?;
    let mut folder = parent(path);
    while !folder.exists() {
        folder = parent(folder);
    }
    ensure!(folder.is_dir(), "{}: {} is a file, not a folder; choose another path", path.display(), folder.display());
    // Tried, not asked: permissions alone do not tell of read-only and special file systems.
    tempfile::Builder::new().prefix(".animatediff").tempfile_in(folder).map(drop).map_err(|error| {
        let folder = folder.display();
        anyhow::anyhow!("{}: folder {folder} cannot be written to ({error}); choose another path", path.display())
    })
}

fn check_encoder(path: &Path, codec: Codec) -> Result<()> {
    let report = video::ffmpeg_report();
    let there = match codec {
        Codec::H264 => report.libx264,
        Codec::Webp => report.libwebp_anim,
    };
    let path = path.to_path_buf();
    if !report.built {
        return Err(video::VideoError::NotBuilt { path }.into());
    }
    if path.to_str().is_none() {
        return Err(video::VideoError::NotUtf8 { path }.into());
    }
    if !there {
        return Err(video::VideoError::NoEncoder { path, encoder: codec.encoder_name() }.into());
    }
    Ok(())
}

/// A folder is replaced as a whole, so it may hold nothing but frames of an earlier clip.
fn holds_only_frames(folder: &Path) -> Result<()> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            bail!("{}: cannot be used as a folder for frames ({error}); choose another path", folder.display())
        }
    };
    for entry in entries {
        let name = entry?.file_name();
        let is_frame = name
            .to_str()
            .and_then(|n| n.strip_suffix(".png"))
            .is_some_and(|stem| !stem.is_empty() && stem.bytes().all(|byte| byte.is_ascii_digit()));
        ensure!(
            is_frame,
            "{}: the folder holds something other than numbered frames ({}); choose an empty or new folder",
            folder.display(),
            name.display()
        );
    }
    Ok(())
}

/// Lets `write` make a file beside `path`, then puts it in place.
pub(crate) fn staged(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let partial = partial_name(path)?;
    make_parent(path)?;
    let written = write(&partial).and_then(|()| sync(&partial));
    if let Err(error) = written {
        let _ = fs::remove_file(&partial);
        return Err(error.context(format!("{} was not written", path.display())));
    }
    publish(&partial, path)
}

fn publish(partial: &Path, path: &Path) -> Result<()> {
    fs::rename(partial, path).with_context(|| format!("cannot rename {} to {}", partial.display(), path.display()))?;
    sync(parent(path))
}

fn partial_name(path: &Path) -> Result<PathBuf> {
    let Some(name) = path.file_name() else {
        bail!("{}: not a file name; name a file or a new folder", path.display())
    };
    let mut partial = OsString::from(".");
    partial.push(name);
    partial.push(".partial");
    Ok(path.with_file_name(partial))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ if path.has_root() => Path::new("/"),
        _ => Path::new("."),
    }
}

fn make_parent(path: &Path) -> Result<()> {
    let parent = parent(path);
    fs::create_dir_all(parent).with_context(|| format!("cannot create folder {}", parent.display()))
}

fn sync(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .with_context(|| format!("cannot bring {} to disk", path.display()))
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot replace {}", folder.display()))
        }
        _ => Ok(()),
    }
}
