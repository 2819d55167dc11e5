//! Sets of clips and stills to train on.

use std::{
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, Result};
use rayon::prelude::*;
use serde_json::{Value, json};

use super::{
    lab::{Lab, stop},
    named,
};
use crate::{
    clip::Clip,
    data::{
        Size,
        augment::{self, Extent},
        decode,
        shapes::{self, Domain, Scene, Split, Style},
        write::Format,
    },
};

/// Frames of a clip; training takes every other one of a part of them.
pub(super) const FRAMES: usize = 16;
/// Frames per second of what is written.
pub(super) const FPS: f64 = 8.0;
/// Side of the clips.
const SIDE: usize = 64;
/// Side of the pictures over which the camera moves.
const FILMED: usize = 96;

impl Lab<'_> {
    /// Veiled clips with captions that say how things move: their table, and the folder they lie in.
    pub fn videos(&mut self) -> Result<(PathBuf, PathBuf)> {
        let set = self.set(Domain::Video, Style::Flat);
        let folder = self.shapes("videos", set, self.budget().videos)?;
        Ok((folder.join("clips.csv"), folder.join(Domain::Video.folder())))
    }

    /// The table of clean stills in `style`.
    pub fn stills(&mut self, style: Style) -> Result<PathBuf> {
        let set = self.set(Domain::Stills, style);
        let name = format!("stills-{}", named(&style));
        Ok(self.shapes(&name, set, self.budget().stills)?.join("clips.csv"))
    }

    /// The folder of clips of the camera move `motion`, made from vistas; `first-<n>.csv` lists the first n of them.
    pub fn references(&mut self, motion: augment::Motion) -> Result<PathBuf> {
        let count = self.budget().references.iter().copied().max().unwrap_or(0);
        let name = format!("references-{}", named(&motion));
        let inputs = json!({
            "motion": named(&motion), "clips": count, "lists": self.budget().references, "seed": self.seed(),
            "side": SIDE, "filmed": FILMED, "frames": FRAMES,
        });
        self.step(&name, inputs, |lab, folder, _| {
            let seed = lab.seed();
            let rows = lab.each(&name, count, |index| {
                let scene = reference(seed, index as u64);
                let picture = scene.frame(Style::Flat, Size::square(FILMED), 0.0);
                let extent = Extent::draw(seed, index as u64);
                let clip = augment::film(&[picture], motion, extent, Size::square(SIDE), FRAMES, FPS);
                let file = Format::default().name(index);
                clip.save(&folder.join(&file))?;
                Ok((file, scene.caption()))
            })?;
            for &count in &lab.budget().references {
                list(&folder.join(format!("first-{count}.csv")), &rows[..count])?;
            }
            Ok(Value::Null)
        })
    }

    /// The clips of [`Lab::references`], every other frame of them, as a module is trained on and samples.
    pub fn reference_clips(&mut self, motion: augment::Motion) -> Result<Vec<Clip>> {
        let folder = self.references(motion)?;
        let count = self.budget().references.iter().copied().max().unwrap_or(0);
        let read = |index| {
            let frames = decode::read_all(&folder.join(Format::default().name(index)))?;
            Ok(Clip { frames: frames.into_iter().step_by(2).take(self.budget().frames).collect(), fps: FPS })
        };
        (0..count).map(read).collect()
    }

    fn set(&self, domain: Domain, style: Style) -> shapes::Set {
        shapes::Set {
            domain,
            style,
            split: Split::Seen,
            veil: shapes::STRENGTH,
            size: Size::square(SIDE),
            frames: FRAMES,
            fps: FPS,
            seed: self.seed(),
            format: Format::default(),
        }
    }

    fn shapes(&mut self, name: &str, set: shapes::Set, count: usize) -> Result<PathBuf> {
        let inputs = json!({"set": format!("{set:?}"), "count": count});
        self.step(name, inputs, |lab, folder, _| {
            let title = lab.title(name);
            lab.watcher.begun(&title, count as u64);
            let tell = Teller::new(lab);
            set.write(folder, count, || tell.one_more())?;
            Ok(Value::Null)
        })
    }

    /// Does `work` for each number below `count`, on all cores.
    fn each<T: Send>(&mut self, name: &str, count: usize, work: impl Fn(usize) -> Result<T> + Sync) -> Result<Vec<T>> {
        let title = self.title(name);
        self.watcher.begun(&title, count as u64);
        let tell = Teller::new(self);
        let one = |index| {
            let value = work(index)?;
            tell.one_more()?;
            Ok(value)
        };
        (0..count).into_par_iter().map(one).collect()
    }
}

/// Tells the watcher from all threads.
struct Teller<'a> {
    watcher: Mutex<&'a mut dyn super::Watcher>,
    interrupt: &'a crate::train::interrupt::Interrupt,
    done: AtomicU64,
}

impl<'a> Teller<'a> {
    fn new(lab: &'a mut Lab) -> Teller<'a> {
        Teller { watcher: Mutex::new(&mut *lab.watcher), interrupt: &lab.interrupt, done: AtomicU64::new(0) }
    }

    fn one_more(&self) -> Result<()> {
        let mut watcher = self.watcher.lock().expect("no thread panics while it tells");
        watcher.at(self.done.fetch_add(1, Ordering::Relaxed) + 1, String::new());
        stop(self.interrupt)
    }
}

/// A standing scene for a camera to move over.
pub(super) fn reference(seed: u64, index: u64) -> Scene {
    Scene::vista(seed ^ CAMERA, index)
}

/// Keeps these scenes apart from those of the stills.
const CAMERA: u64 = 0x6361_6d65_7261;

fn list(path: &Path, rows: &[(String, String)]) -> Result<()> {
    let mut table = csv::Writer::from_path(path).with_context(|| format!("cannot write {}", path.display()))?;
    table.write_record(["video", "caption"])?;
    rows.iter().try_for_each(|(file, caption)| table.write_record([file, caption]))?;
    table.flush().with_context(|| format!("cannot write {}", path.display()))
}
