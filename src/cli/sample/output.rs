//! Where clips go: names, checks before the work, the settings beside each clip.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::job::Job;
use crate::{
    cli::{as_usage, usage},
    clip::{self, Clip},
    files,
    train::folder::file_stem,
    yaml,
};

/// The files of one call.
pub struct Target {
    clips: Vec<PathBuf>,
    overview: Option<PathBuf>,
}

impl Target {
    /// One path per prompt: the given one for a single prompt; for several, numbered names beside it or, if it is a folder,
    /// in it.
    pub fn new(output: &Path, prompts: &[&str]) -> Target {
        let Some(extension) = output.extension().map(|extension| extension.to_string_lossy().into_owned()) else {
            return if prompts.len() == 1 {
                Target { clips: vec![output.to_owned()], overview: None }
            } else {
                Target::in_folder(output, prompts)
            };
        };
        let numbered = |index: usize| {
            output.with_extension("").with_file_name(format!(
                "{}-{}.{extension}",
                output.file_stem().unwrap_or_default().to_string_lossy(),
                name(prompts, index)
            ))
        };
        let clips =
            if prompts.len() == 1 { vec![output.to_owned()] } else { (0..prompts.len()).map(numbered).collect() };
        Target { clips, overview: None }
    }

    /// A file per prompt in `folder`, and an overview of several.
    pub fn in_folder(folder: &Path, prompts: &[&str]) -> Target {
        let clips = (0..prompts.len()).map(|index| folder.join(format!("{}.gif", name(prompts, index)))).collect();
        let overview = (prompts.len() > 1).then(|| folder.join("sample.gif"));
        Target { clips, overview }
    }

    /// Whether there is to be an overview.
    pub fn has_overview(&self) -> bool {
        self.overview.is_some()
    }

    /// Whether everything can be written, before any work.
    pub fn check(&self, overwrite: bool) -> Result<()> {
        for path in self.clips.iter().chain(&self.overview) {
            if is_picture(path) {
                check_file(path, overwrite)?;
            } else {
                clip::check_target(path).map_err(as_usage)?;
                check_absent(path, overwrite)?;
            }
            check_absent(&settings_path(path), overwrite)?;
        }
        Ok(())
    }

    /// Whether clip number `index` can hold `frames` frames, `fps` a second, before they are made.
    pub fn check_clip(&self, index: usize, frames: i64, fps: f64) -> Result<()> {
        let path = &self.clips[index];
        if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gif")) && fps > 50.0 {
            return Err(usage(format!("{}: a GIF shows at most 50 frames per second, not {fps}", path.display())));
        }
        if is_picture(path) && frames > 1 {
            return Err(usage(format!(
                "{}: a PNG holds one frame and this clip has {frames}; use .gif, .mp4, .webp or a folder",
                path.display()
            )));
        }
        Ok(())
    }

    /// Writes clip number `index`; a clip that appeared since the check is not replaced either.
    pub fn save(&self, index: usize, clip: &Clip, overwrite: bool) -> Result<&Path> {
        let path = &self.clips[index];
        check_absent(path, overwrite)?;
        if is_picture(path) {
            self.check_clip(index, clip.frames.len() as i64, clip.fps)?;
            clip.frames[0].save_png(path)?;
        } else {
            clip.save(path)?;
        }
        Ok(path)
    }

    /// Writes the job that makes clip number `index` again.
    pub fn save_settings(&self, index: usize, job: &Job) -> Result<()> {
        let path = settings_path(&self.clips[index]);
        let text = format!("# animatediff sample -c {}\n{}", path.display(), yaml::to_text(&[job]));
        files::write_atomic(&path, |out| Ok(std::io::Write::write_all(out, text.as_bytes())?))
    }

    /// All clips of several in one, four to a row.
    pub fn save_overview(&self, clips: &[Clip]) -> Result<()> {
        let Some(path) = &self.overview else { return Ok(()) };
        let size = |clip: &Clip| clip.frames.first().map(|frame| (frame.width, frame.height, clip.frames.len()));
        if clips.iter().any(|clip| size(clip) != size(&clips[0])) {
            return Ok(());
        }
        Clip::grid(clips, 4).save(path).with_context(|| format!("{}: cannot be written", path.display()))
    }
}

/// A new folder below `outputs/`, for the jobs of the file `config`.
pub fn new_folder(config: Option<&Path>) -> PathBuf {
    let stem = config.and_then(Path::file_stem).map_or("sample".into(), |stem| stem.to_string_lossy().into_owned());
    let stamp = jiff::Zoned::now().strftime("%Y-%m-%dT%H-%M-%S");
    Path::new("outputs").join(format!("{stem}-{stamp}"))
}

fn name(prompts: &[&str], index: usize) -> String {
    format!("{index}-{}", file_stem(prompts[index], "clip"))
}

/// Whether a single file can be written.
pub fn check_file(path: &Path, overwrite: bool) -> Result<()> {
    check_absent(path, overwrite)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    files::check_writable(folder).map_err(|error| usage(format!("{}: cannot be written: {error:#}", path.display())))
}

fn check_absent(path: &Path, overwrite: bool) -> Result<()> {
    let there = if path.is_dir() {
        fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some())
    } else {
        path.exists()
    };
    if there && !overwrite {
        return Err(usage(format!("{}: exists already; choose another name, or add --overwrite", path.display())));
    }
    Ok(())
}

fn is_picture(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png"))
}

/// `clip.gif` → `clip.gif.yaml`; a folder of frames `clip` → `clip.yaml`.
fn settings_path(path: &Path) -> PathBuf {
    // Of the components, as a folder may be given with a slash at its end.
    let mut name = path.components().as_path().as_os_str().to_owned();
    name.push(".yaml");
    PathBuf::from(name)
}
