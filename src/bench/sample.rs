//! Prompts to frames: text, denoising steps, VAE.

use std::convert::Infallible;

use anyhow::Result;
use serde_json::json;
use tch::{Device, Tensor};

use super::{
    Case, Report, flops,
    measure::{self, Marks, finish, median, round, since_start, timed, with},
    world::{World, request},
};
use crate::sample::{Pipeline, Request, Studio};

/// Samples and decodes `case.batch` clips together, `case.repeat` times.
pub fn run(case: &Case) -> Result<Report> {
    let (studio, build, _) = timed(|| {
        let world = World::new(case)?;
        let studio = Studio::open(&world.base, world.cast(case), case.device, case.kind);
        finish(case.device);
        studio.map_err(anyhow::Error::from)
    });
    let studio = studio?;
    let pipeline = studio.pipeline();
    let mut first = None;
    let (_, warmup, _) = timed(|| {
        for _ in 0..case.warmup {
            Take::new(case, &pipeline, &mut first);
        }
    });
    case.settled();
    let mut takes = Vec::new();
    let mut busy = Vec::new();
    for _ in 0..case.repeat {
        let (take, _, cores) = timed(|| Take::new(case, &pipeline, &mut first));
        takes.push(take);
        busy.push(cores);
    }
    let (_, text, _) = timed(|| {
        drop(pipeline.text_states(&["", "a red circle moving left"]));
        finish(case.device);
    });
    let steps: Vec<f64> = takes.iter().flat_map(|take| take.counted().to_vec()).collect();
    let column = |field: fn(&Take) -> f64| median(&takes.iter().map(field).collect::<Vec<_>>());
    let measured = json!({
        "steps": case.steps,
        "total_s": round(column(|take| take.total), 4),
        "text_s": round(text, 4),
        "decode_s": round(column(|take| take.decode), 4),
        "build_s": round(build, 3),
        "warmup_s": round(warmup, 3),
        "time_to_first_step_s": first.map(|seconds: f64| round(seconds, 3)),
        "cpu_per_wall": round(median(&busy), 2),
        "finite": takes.iter().all(|take| take.finite),
    });
    let measured = with(measure::steps(&steps, flops::step(case)), measured);
    Ok(Report::new("sample", case, measured))
}

/// One round.
struct Take {
    steps: Vec<f64>,
    decode: f64,
    total: f64,
    finite: bool,
}

impl Take {
    /// `first` becomes the age of the process when its first step is done.
    fn new(case: &Case, pipeline: &Pipeline, first: &mut Option<f64>) -> Take {
        let requests: Vec<Request> = (0..case.batch).map(|row| request(case, row)).collect();
        let noise = Tensor::cat(&requests.iter().map(|request| pipeline.noise(request)).collect::<Vec<_>>(), 0);
        let mut marks = Marks::start(case.device);
        let Ok(latents) = pipeline.denoise_together(&requests, &noise, |_| {
            marks.mark();
            *first = first.or_else(since_start);
            Ok::<_, Infallible>(())
        });
        let mut decoding = Marks::start(case.device);
        for row in 0..case.batch {
            drop(pipeline.decode(&latents.narrow(0, row, 1)));
        }
        decoding.mark();
        let finite = latents.to_device(Device::Cpu).isfinite().all().int64_value(&[]) == 1;
        let (total, decode) = (marks.total() + decoding.total(), decoding.total());
        Take { steps: marks.seconds(), decode, total, finite }
    }

    /// The first step has the text in it: it counts only where there is hardly another.
    fn counted(&self) -> &[f64] {
        if self.steps.len() > 2 { &self.steps[1..] } else { &self.steps }
    }
}
