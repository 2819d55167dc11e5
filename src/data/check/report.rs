//! What is wrong with a set, all clips together.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;

use serde::Serialize;

use super::super::faults::{ByCause, Fault};
use super::mark::Mark;
use super::{Dataset, Finding, Findings};

/// All that was found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Clips in the set.
    pub clips: usize,
    /// Clips that were looked at: fewer when it was stopped.
    pub examined: usize,
    /// Clips that training can take: read to the end, and long enough.
    pub usable: usize,
    /// Clips that it cannot take, by cause.
    pub broken: ByCause,
    /// Frames that training takes of a clip.
    pub sample_n_frames: usize,
    /// How many clips have which size, as `WIDTHxHEIGHT`.
    pub sizes: BTreeMap<String, usize>,
    /// How many have which rate, in frames per second to a hundredth; empty for single frames.
    pub rates: BTreeMap<String, usize>,
    /// Frames: fewest, median, most.
    pub frames: Option<[usize; 3]>,
    /// Names that several lines or files have.
    pub duplicate_ids: Vec<Twice>,
    /// Contents that several files have.
    pub duplicate_contents: Vec<Twice>,
    /// Clips without a caption.
    pub without_caption: Vec<String>,
    /// Scene cuts; none for single frames.
    pub cuts: Vec<Cut>,
    /// What lies over many clips at one place.
    pub marks: Vec<Mark>,
}

/// A name or a content that is there more than once.
#[derive(Clone, Debug, Serialize)]
pub struct Twice {
    /// The name, or the hash.
    pub what: String,
    /// Where.
    pub paths: Vec<PathBuf>,
}

/// A clip with more than one scene.
#[derive(Clone, Debug, Serialize)]
pub struct Cut {
    /// Its name.
    pub id: String,
    /// Where it lies.
    pub path: PathBuf,
    /// Frames at which another scene begins, from 0.
    pub frames: Vec<usize>,
}

impl Report {
    /// Of what was found of `dataset`.
    pub fn new(dataset: &Dataset, Findings { clips: findings, marks }: &Findings) -> Report {
        let shapes = || findings.iter().filter_map(|finding| finding.shape);
        let mut frames: Vec<usize> = shapes().map(|shape| shape.frames).collect();
        frames.sort_unstable();
        let mut broken = ByCause::new();
        for finding in findings {
            if let Some(failure) = &finding.failure {
                let (id, path) = (finding.id.clone(), finding.path.clone());
                broken.entry(failure.cause()).or_default().push(Fault { id, path, message: failure.to_string() });
            }
        }
        let cut = |finding: &Finding| Cut {
            id: finding.id.clone(),
            path: finding.path.clone(),
            frames: finding.cuts.clone(),
        };
        Report {
            clips: dataset.len(),
            examined: findings.len(),
            usable: findings.iter().filter(|finding| finding.failure.is_none()).count(),
            broken,
            sample_n_frames: dataset.config().sample_n_frames,
            sizes: count(shapes().map(|shape| format!("{}x{}", shape.width, shape.height))),
            rates: count(shapes().filter_map(|shape| shape.fps).map(rate)),
            frames: frames.first().map(|first| [*first, frames[frames.len() / 2], frames[frames.len() - 1]]),
            duplicate_ids: twice(findings, |finding| Some(&finding.id)),
            duplicate_contents: files_twice(findings),
            without_caption: findings.iter().filter(|f| f.caption.is_empty()).map(|f| f.id.clone()).collect(),
            cuts: findings.iter().filter(|finding| !finding.cuts.is_empty()).map(cut).collect(),
            marks: marks.clone(),
        }
    }
}

fn rate(fps: f64) -> String {
    let text = format!("{fps:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn count(keys: impl Iterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    keys.for_each(|key| *counts.entry(key).or_default() += 1);
    counts
}

/// Contents of more than one file: a file that several rows name is no duplicate of itself.
fn files_twice(findings: &[Finding]) -> Vec<Twice> {
    let mut same = twice(findings, |finding| finding.content.as_ref().map(|content| &content.blake3));
    let mut seen = HashSet::new();
    same.iter_mut().for_each(|same| same.paths.retain(|path| seen.insert(path.clone())));
    same.retain(|same| same.paths.len() > 1);
    same
}

/// What `key` gives for more than one clip, in the order of the first ones.
fn twice<'a>(findings: &'a [Finding], key: impl Fn(&'a Finding) -> Option<&'a String>) -> Vec<Twice> {
    let mut places: HashMap<&String, Vec<&Finding>> = HashMap::new();
    for finding in findings {
        if let Some(key) = key(finding) {
            places.entry(key).or_default().push(finding);
        }
    }
    let mut twice: Vec<(&String, Vec<&Finding>)> = places.into_iter().filter(|(_, of)| of.len() > 1).collect();
    twice.sort_by_key(|(_, of)| of[0].item);
    let paths = |of: Vec<&Finding>| of.into_iter().map(|finding| finding.path.clone()).collect();
    twice.into_iter().map(|(what, of)| Twice { what: what.clone(), paths: paths(of) }).collect()
}
