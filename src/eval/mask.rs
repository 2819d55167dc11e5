//! Sets of pixels.

use super::plane::Plane;

/// A set of a frame's pixels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    width: usize,
    height: usize,
    on: Vec<bool>,
}

impl Mask {
    /// The pixels whose value is at least `threshold`.
    pub(super) fn above(plane: &Plane, threshold: f64) -> Mask {
        let on = plane.values.iter().map(|value| *value >= threshold).collect();
        Mask { width: plane.width, height: plane.height, on }
    }

    /// Whether the pixel at column `x` and row `y` belongs to it.
    pub fn contains(&self, x: usize, y: usize) -> bool {
        x < self.width && y < self.height && self.on[y * self.width + x]
    }

    /// How many pixels belong to it.
    pub fn count(&self) -> usize {
        self.on.iter().filter(|on| **on).count()
    }

    /// The pixels' indices, row by row.
    pub(super) fn pixels(&self) -> impl Iterator<Item = usize> {
        self.on.iter().enumerate().filter_map(|(at, on)| on.then_some(at))
    }

    /// First and last column, first and last row; `None` of nothing.
    pub(super) fn bounds(&self) -> Option<[usize; 4]> {
        let columns = || self.pixels().map(|at| at % self.width);
        let rows = || self.pixels().map(|at| at / self.width);
        Some([columns().min()?, columns().max()?, rows().min()?, rows().max()?])
    }

    /// The pixels that belong to both.
    pub(super) fn and(&self, other: &Mask) -> Mask {
        Mask { on: self.on.iter().zip(&other.on).map(|(a, b)| *a && *b).collect(), ..*self }
    }

    /// The pixels that belong to either.
    pub(super) fn or(&self, other: &Mask) -> Mask {
        Mask { on: self.on.iter().zip(&other.on).map(|(a, b)| *a || *b).collect(), ..*self }
    }

    /// The pixels that do not belong to it.
    pub(super) fn outside(&self) -> Mask {
        Mask { on: self.on.iter().map(|on| !on).collect(), ..*self }
    }

    /// With all pixels whose centres are at most `radius` pixels away.
    pub(super) fn grown(&self, radius: f64) -> Mask {
        let reach = radius as i64;
        let steps: Vec<(i64, i64)> = (-reach..=reach)
            .flat_map(|dy| (-reach..=reach).map(move |dx| (dx, dy)))
            .filter(|(dx, dy)| ((dx * dx + dy * dy) as f64) <= radius * radius)
            .collect();
        let mut grown = self.clone();
        for at in self.pixels() {
            let (x, y) = ((at % self.width) as i64, (at / self.width) as i64);
            for (dx, dy) in &steps {
                if (0..self.width as i64).contains(&(x + dx)) && (0..self.height as i64).contains(&(y + dy)) {
                    grown.on[(y + dy) as usize * self.width + (x + dx) as usize] = true;
                }
            }
        }
        grown
    }

    /// Without the pixels that have one outside at most `radius` pixels away. Nothing lies beyond the frame's border.
    pub(super) fn shrunk(&self, radius: f64) -> Mask {
        self.outside().grown(radius).outside()
    }

    /// With the gaps that are too narrow for a step: grown by one pixel and shrunk again, as if the frame had no border.
    pub(super) fn closed(&self) -> Mask {
        let (width, height) = (self.width, self.height);
        let beyond = |at: usize| self.contains((at % (width + 2)).wrapping_sub(1), (at / (width + 2)).wrapping_sub(1));
        let on = (0..(width + 2) * (height + 2)).map(beyond).collect();
        let closed = Mask { width: width + 2, height: height + 2, on }.grown(1.0).shrunk(1.0);
        let inner = |at: usize| closed.contains(at % width + 1, at / width + 1);
        Mask { width, height, on: (0..width * height).map(inner).collect() }
    }

    /// With its holes: all that the border of the frame cannot be reached from, stepping along sides.
    pub(super) fn filled(&self) -> Mask {
        let mut sea = vec![false; self.on.len()];
        let border = (0..self.on.len()).filter(|at| self.on_border(*at) && !self.on[*at]);
        let mut open: Vec<usize> = border.collect();
        while let Some(at) = open.pop() {
            if !std::mem::replace(&mut sea[at], true) {
                open.extend(self.around(at, false).filter(|next| !self.on[*next] && !sea[*next]));
            }
        }
        Mask { on: sea.into_iter().map(|wet| !wet).collect(), ..*self }
    }

    /// Its largest part that hangs together along sides and corners.
    pub(super) fn largest(&self) -> Mask {
        let mut seen = vec![false; self.on.len()];
        let mut best = Vec::new();
        for first in self.pixels() {
            let (mut part, mut open) = (Vec::new(), vec![first]);
            while let Some(at) = open.pop() {
                if self.on[at] && !std::mem::replace(&mut seen[at], true) {
                    part.push(at);
                    open.extend(self.around(at, true).filter(|next| !seen[*next]));
                }
            }
            if part.len() > best.len() {
                best = part;
            }
        }
        let mut on = vec![false; self.on.len()];
        best.into_iter().for_each(|at| on[at] = true);
        Mask { on, ..*self }
    }

    fn on_border(&self, at: usize) -> bool {
        let (x, y) = (at % self.width, at / self.width);
        x == 0 || y == 0 || x + 1 == self.width || y + 1 == self.height
    }

    fn around(&self, at: usize, corners: bool) -> impl Iterator<Item = usize> + use<> {
        let (width, height) = (self.width as i64, self.height as i64);
        let (x, y) = (at as i64 % width, at as i64 / width);
        (0..9i64).map(|step| (step % 3 - 1, step / 3 - 1)).filter(move |(dx, dy)| corners || dx * dy == 0).filter_map(
            move |(dx, dy)| {
                let inside = (0..width).contains(&(x + dx)) && (0..height).contains(&(y + dy));
                inside.then_some(((y + dy) * width + x + dx) as usize)
            },
        )
    }
}
