//! What the camera does in a clip: how the picture as a whole is moved, turned and scaled.

use super::plane::Plane;
use crate::clip::Clip;
use crate::data::augment::Motion;
use crate::frame::Frame;

/// The least scaling of a zoom, from the first frame to the last, or its inverse.
pub const ZOOM: f64 = 1.15;

/// The least way of a pan or a tilt, as a share of the shorter side: 5 pixels of 64.
pub const SLIDE: f64 = 5.0 / 64.0;

/// The least turn of a roll, in radians.
pub const ROLL: f64 = 10.0 * std::f64::consts::PI / 180.0;

/// How strong any other motion may be, each in its own least, as a share of the one that is shown; one that is below its
/// least never counts.
const OTHERS: f64 = 0.5;

/// One motion of each pair.
const AXES: [Motion; 4] = [Motion::ZoomIn, Motion::PanLeft, Motion::TiltUp, Motion::RollClockwise];

/// The least side, in pixels, of frames that can be aligned.
pub const SMALLEST: usize = 16;

/// One stage of an alignment.
struct Level {
    /// How often the frames' sides are halved.
    halved: usize,
    /// The most steps to take.
    steps: usize,
    /// The difference in levels at which a pixel counts half.
    half: f64,
    /// How strongly the warp is held where the stage begins, so that what the pictures do not tell stays as it is: the mean
    /// over all pixels of the squared slope, in levels per pixel, that outweighs it.
    hold: f64,
}

/// How the step that all pairs share is sought.
const COMMON: [Level; 2] =
    [Level { halved: 2, steps: 30, half: 60.0, hold: 0.005 }, Level { halved: 1, steps: 10, half: 40.0, hold: 0.005 }];

/// How each pair's own is sought, from there: so tightly held that a pair which tells nothing keeps the common one.
const OWN: [Level; 2] =
    [Level { halved: 1, steps: 10, half: 16.0, hold: 0.3 }, Level { halved: 0, steps: 6, half: 16.0, hold: 0.3 }];

/// How the content of a picture moves: scaled and turned around the picture's centre, then shifted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Similarity {
    /// Above 1 where things become larger.
    pub scale: f64,
    /// Turn in radians, clockwise as one sees it.
    pub angle: f64,
    /// Shift to the right, in pixels.
    pub dx: f64,
    /// Shift down, in pixels.
    pub dy: f64,
    /// The picture's shorter side, in pixels.
    pub side: f64,
}

impl Similarity {
    /// How far the content moved in the sense of a camera's `motion`, whatever else it did: the logarithm of the scale, the
    /// shift in pixels, or the turn in radians. Negative if it went the opposite way. Where the camera goes left, the
    /// content goes right.
    pub fn amount(&self, motion: Motion) -> f64 {
        match motion {
            Motion::ZoomIn => self.scale.ln(),
            Motion::ZoomOut => -self.scale.ln(),
            Motion::PanLeft => self.dx,
            Motion::PanRight => -self.dx,
            Motion::TiltUp => self.dy,
            Motion::TiltDown => -self.dy,
            Motion::RollClockwise => -self.angle,
            Motion::RollAnticlockwise => self.angle,
        }
    }

    /// Whether it is what a camera's `motion` looks like: at least [`ZOOM`], [`SLIDE`] or [`ROLL`] in its direction, and any
    /// other either below its own least, or, counted in these, at most half as strong.
    pub fn shows(&self, motion: Motion) -> bool {
        let strength = |motion: Motion| self.amount(motion) / self.least(motion);
        let own = strength(motion);
        // Motions come in opposite pairs.
        let mut others = AXES.into_iter().filter(|axis| *axis as usize / 2 != motion as usize / 2);
        own >= 1.0 && others.all(|axis| strength(axis).abs() <= (OTHERS * own).max(1.0))
    }

    /// The least amount of `motion` that counts: [`ZOOM`]'s logarithm, [`SLIDE`] in pixels, or [`ROLL`].
    pub fn least(&self, motion: Motion) -> f64 {
        match motion {
            Motion::ZoomIn | Motion::ZoomOut => ZOOM.ln(),
            Motion::PanLeft | Motion::PanRight | Motion::TiltUp | Motion::TiltDown => SLIDE * self.side,
            Motion::RollClockwise | Motion::RollAnticlockwise => ROLL,
        }
    }
}

/// How the content of `clip` moves from the first frame to the last: the alignments of neighbouring frames, one after the
/// other. What moves for itself counts little as long as most of the picture does not. Of a texture that repeats itself,
/// steps of half a period and more cannot be told. All frames have to be of one size; of fewer
/// than two, or smaller than 16 pixels, nothing moves.
///
/// First, one step is sought that suits all neighbours: a shape on a plain background tells it even if it is seen in some
/// frames only. From there, each pair of neighbours finds its own, for motions that are not even.
///
/// On a plain background there is nothing but the shape, so that its own motion reads as the camera's. Stripes look alike
/// wherever they are shifted to along themselves, so that in that direction the same holds. A shape that fills much of the
/// picture and grows reads as a zoom on any background.
pub fn fit(clip: &Clip) -> Similarity {
    let large = |frame: &&Frame| frame.width.min(frame.height) >= SMALLEST;
    let pyramids: Vec<Pyramid> = clip.frames.iter().filter(large).map(Pyramid::new).collect();
    let pairs: Vec<Pair> = pyramids.windows(2).map(|pair| (&pair[0], &pair[1])).collect();
    let common = align(&pairs, Warp::IDENTITY, &COMMON);
    let steps = pairs.iter().map(|pair| align(&[*pair], common, &OWN));
    let Warp { m: (cos, sin), d: (dx, dy) } = steps.fold(Warp::IDENTITY, |whole, step| whole.then(&step));
    let side = clip.frames.first().map_or(0, |frame| frame.width.min(frame.height)) as f64;
    Similarity { scale: cos.hypot(sin), angle: sin.atan2(cos), dx, dy, side }
}

/// Takes a point `p` around the centre to `m p + d`; `m` is a complex number, whose argument turns and whose size scales.
#[derive(Clone, Copy, Debug)]
struct Warp {
    m: (f64, f64),
    d: (f64, f64),
}

impl Warp {
    const IDENTITY: Warp = Warp { m: (1.0, 0.0), d: (0.0, 0.0) };

    fn apply(&self, (x, y): (f64, f64)) -> (f64, f64) {
        let ((cos, sin), (dx, dy)) = (self.m, self.d);
        (cos * x - sin * y + dx, sin * x + cos * y + dy)
    }

    /// This one, and `next` after it.
    fn then(&self, next: &Warp) -> Warp {
        let turn = Warp { d: (0.0, 0.0), ..*next };
        Warp { m: turn.apply(self.m), d: next.apply(self.d) }
    }

    fn inverse(&self) -> Warp {
        let (cos, sin) = self.m;
        let size = cos * cos + sin * sin;
        let turn = Warp { m: (cos / size, -sin / size), d: (0.0, 0.0) };
        Warp { d: turn.apply((-self.d.0, -self.d.1)), ..turn }
    }

    /// The same between pictures `factor` times as large.
    fn resized(&self, factor: f64) -> Warp {
        Warp { d: (self.d.0 * factor, self.d.1 * factor), ..*self }
    }
}

/// Red, green and blue, from the largest size to the smallest; each softened only once, which spoils no more than its
/// outermost pixels.
struct Pyramid(Vec<[Plane; 3]>);

impl Pyramid {
    fn new(frame: &Frame) -> Pyramid {
        let full = [0, 1, 2].map(|c| Plane::of(frame, |rgb| rgb[c]));
        let levels = std::iter::successors(Some(full), |larger| Some(larger.each_ref().map(Plane::halved)));
        Pyramid(levels.take(COMMON[0].halved + 1).map(|level| level.each_ref().map(Plane::soft)).collect())
    }
}

/// A frame and the one after it.
type Pair<'a> = (&'a Pyramid, &'a Pyramid);

/// The warp that takes the content of each pair's first frame to where it is in the second, sought from `guess` on `levels`
/// one after the other.
fn align(pairs: &[Pair], guess: Warp, levels: &[Level]) -> Warp {
    let mut warp = guess;
    for level in levels {
        let factor = 0.5f64.powi(level.halved as i32);
        let mut here = warp.resized(factor);
        let start = here;
        for _ in 0..level.steps {
            let sums = Sums::of(pairs, here, level);
            let moved = sums.improve(&mut here, &start, level.hold);
            if moved < 0.02 {
                break;
            }
        }
        warp = here.resized(1.0 / factor);
    }
    warp
}

/// Which of two pictures is looked up in the other. Both ways count: else a warp could push out of the frame what it does
/// not explain.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    There,
    Back,
}

/// The normal equations of a Gauss-Newton step. The unknowns are the changes of the shift along x and y, and of both parts
/// of `m` in pixels at the rim.
#[derive(Default)]
struct Sums {
    normal: [[f64; 4]; 4],
    right: [f64; 4],
    pixels: f64,
    rim: f64,
}

impl Sums {
    /// What all pairs say, both ways.
    fn of(pairs: &[Pair], warp: Warp, level: &Level) -> Sums {
        let mut sums = Sums::default();
        for (from, to) in pairs {
            let (from, to) = (&from.0[level.halved], &to.0[level.halved]);
            sums.add(from, to, warp, Way::There, level.half);
            sums.add(to, from, warp, Way::Back, level.half);
        }
        sums
    }

    /// Adds what each pixel of `from` says of how `warp` should change. On the way back, `warp` takes `to` to `from`.
    fn add(&mut self, from: &[Plane; 3], to: &[Plane; 3], warp: Warp, way: Way, half: f64) {
        let Plane { width, height, .. } = from[0];
        let centre = (width as f64 / 2.0, height as f64 / 2.0);
        self.rim = width.min(height) as f64 / 2.0;
        self.pixels += (width * height) as f64;
        let lookup = if way == Way::There { warp } else { warp.inverse() };
        // Going back, a change of the warp moves the place that is looked up the other way, turned and scaled back.
        let turned = Warp { m: (-lookup.m.0, lookup.m.1), d: (0.0, 0.0) };
        // The outermost pixels were softened with what is not there.
        for y in 1..height - 1 {
            for x in 1..width - 1 {
                let p = (x as f64 + 0.5 - centre.0, y as f64 + 0.5 - centre.1);
                let q = lookup.apply(p);
                let Some(corner) = Corner::of(q.0 + centre.0, q.1 + centre.1, width, height) else { continue };
                let mut slopes = Slopes::default();
                for c in 0..3 {
                    let (value, gx, gy) = corner.sample(&to[c]);
                    slopes.add(
                        if way == Way::There { (gx, gy) } else { turned.apply((gx, gy)) },
                        from[c].values[y * width + x] - value,
                    );
                }
                let moved = if way == Way::There { p } else { q };
                self.add_pixel(&slopes, (moved.0 / self.rim, moved.1 / self.rim), half);
            }
        }
    }

    /// Adds the slopes at a pixel whose place, in rims, `m` is multiplied by.
    fn add_pixel(&mut self, slopes: &Slopes, (x, y): (f64, f64), half: f64) {
        let weight = 1.0 / (1.0 + slopes.difference / (half * half));
        let ways = [(1.0, 0.0), (0.0, 1.0), (x, y), (-y, x)];
        for i in 0..4 {
            let (a, b) = ways[i];
            let (gx, gy) = (weight * (slopes.xx * a + slopes.xy * b), weight * (slopes.xy * a + slopes.yy * b));
            self.right[i] += weight * (slopes.x * a + slopes.y * b);
            for (entry, (a, b)) in self.normal[i].iter_mut().zip(ways).take(i + 1) {
                *entry += gx * a + gy * b;
            }
        }
    }

    /// Changes `warp` as the equations ask for, held towards `start`; returns the largest change in pixels.
    fn improve(mut self, warp: &mut Warp, start: &Warp, hold: f64) -> f64 {
        let hold = hold * self.pixels;
        let away = [
            warp.d.0 - start.d.0,
            warp.d.1 - start.d.1,
            (warp.m.0 - start.m.0) * self.rim,
            (warp.m.1 - start.m.1) * self.rim,
        ];
        for (i, away) in away.into_iter().enumerate() {
            self.normal[i][i] += hold;
            self.right[i] -= hold * away;
        }
        for i in 0..4 {
            (i + 1..4).for_each(|j| self.normal[i][j] = self.normal[j][i]);
        }
        let [dx, dy, cos, sin] = solve(self.normal, self.right);
        warp.d = (warp.d.0 + dx, warp.d.1 + dy);
        warp.m = (warp.m.0 + cos / self.rim, warp.m.1 + sin / self.rim);
        [dx, dy, cos, sin].into_iter().map(f64::abs).fold(0.0, f64::max)
    }
}

/// Products of the slopes at a pixel with each other and with the difference there, summed over the colours.
#[derive(Default)]
struct Slopes {
    xx: f64,
    xy: f64,
    yy: f64,
    x: f64,
    y: f64,
    /// The squared difference.
    difference: f64,
}

impl Slopes {
    fn add(&mut self, (gx, gy): (f64, f64), difference: f64) {
        self.xx += gx * gx;
        self.xy += gx * gy;
        self.yy += gy * gy;
        self.x += gx * difference;
        self.y += gy * difference;
        self.difference += difference * difference;
    }
}

/// The pixels around a point, and how much of each it takes.
struct Corner {
    at: usize,
    width: usize,
    share: (f64, f64),
}

impl Corner {
    /// Of a point between pixel centres; `None` beyond the outermost.
    fn of(x: f64, y: f64, width: usize, height: usize) -> Option<Corner> {
        let (x, y) = (x - 0.5, y - 0.5);
        let inside = x >= 1.0 && y >= 1.0 && x < (width - 2) as f64 && y < (height - 2) as f64;
        inside.then(|| Corner { at: y as usize * width + x as usize, width, share: (x.fract(), y.fract()) })
    }

    /// The value at the point, and its slopes along x and y.
    fn sample(&self, plane: &Plane) -> (f64, f64, f64) {
        let (fx, fy) = self.share;
        let [a, b] = [plane.values[self.at], plane.values[self.at + 1]];
        let [c, d] = [plane.values[self.at + self.width], plane.values[self.at + self.width + 1]];
        let (upper, lower) = (a + (b - a) * fx, c + (d - c) * fx);
        (upper + (lower - upper) * fy, (b - a) * (1.0 - fy) + (d - c) * fy, lower - upper)
    }
}

/// Solves `normal * x = right`.
fn solve(mut normal: [[f64; 4]; 4], mut right: [f64; 4]) -> [f64; 4] {
    for i in 0..4 {
        for below in i + 1..4 {
            let share = normal[below][i] / normal[i][i];
            (i..4).for_each(|column| normal[below][column] -= share * normal[i][column]);
            right[below] -= share * right[i];
        }
    }
    let mut solution = [0.0; 4];
    for i in (0..4).rev() {
        let known: f64 = (i + 1..4).map(|j| normal[i][j] * solution[j]).sum();
        solution[i] = (right[i] - known) / normal[i][i];
    }
    solution
}
