//! Curves as SVG. Colours are the page's, by class.

use std::fmt::Write;

use super::{super::finding::Plot, document::ClaimRow};

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 48.0;
const BOTTOM: f64 = 34.0;
const TOP: f64 = 12.0;
const RIGHT: f64 = 12.0;

/// The plot of `claim`'s means.
pub(super) fn svg(plot: &Plot, claim: &ClaimRow) -> String {
    let curves: Vec<Vec<f64>> = plot
        .curves
        .iter()
        .map(|(_, numbers)| numbers.iter().map(|name| claim.mean(name).unwrap_or(f64::NAN)).collect())
        .collect();
    let finite = || curves.iter().flatten().copied().filter(|value| value.is_finite());
    let low = finite().fold(0.0, f64::min);
    let high = finite().fold(f64::MIN, f64::max);
    let high = if high > low { high } else { low + 1.0 };
    let x = |index: usize| {
        let share = index as f64 / (plot.places.len().max(2) - 1) as f64;
        LEFT + share * (WIDTH - LEFT - RIGHT)
    };
    let y = |value: f64| TOP + (high - value) / (high - low) * (HEIGHT - TOP - BOTTOM);
    let mut out = format!("<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
    let decimals = (1.0 - (high - low).log10().floor()).clamp(0.0, 9.0) as usize;
    for share in [0.0, 0.5, 1.0] {
        let value = low + share * (high - low);
        let at = y(value);
        let _ =
            write!(out, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>", WIDTH - RIGHT);
        let _ = write!(
            out,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value:.decimals$}</text>",
            LEFT - 6.0,
            at + 4.0
        );
    }
    for (index, place) in plot.places.iter().enumerate() {
        let (at, below) = (x(index), HEIGHT - BOTTOM + 15.0);
        let _ = write!(out, "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{}</text>", escaped(place));
    }
    let middle = (LEFT + WIDTH - RIGHT) / 2.0;
    let _ = write!(
        out,
        "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
        HEIGHT - 4.0,
        escaped(&plot.axis)
    );
    for (number, values) in curves.iter().enumerate() {
        let points = values.iter().enumerate().filter(|(_, value)| value.is_finite());
        let points: Vec<(f64, f64)> = points.map(|(index, value)| (x(index), y(*value))).collect();
        let line: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = write!(out, "<polyline class=\"curve c{number}\" points=\"{}\"/>", line.join(" "));
        for (x, y) in points {
            let _ = write!(out, "<circle class=\"c{number}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>");
        }
    }
    out + "</svg>"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
