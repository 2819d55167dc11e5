//! Measures of clips, on rendered truth.

use animatediff::clip::Clip;
use animatediff::data::augment::{self, Extent};
use animatediff::data::choice;
use animatediff::data::shapes::{Motion, Pose, Scene, Split, Style, Texture, veil};
use animatediff::data::{Size, shapes};
use animatediff::eval::camera::{self, Similarity};
use animatediff::eval::classify::classify;
use animatediff::eval::jump::{self, Jump, jump};
use animatediff::eval::segment::segment;
use animatediff::eval::track::{Spot, Track, track};
use animatediff::eval::{style, watermark};
use animatediff::frame::Frame;

const SIDE: usize = 64;
const SIZE: Size = Size::square(SIDE);

fn picture(index: u64, style: Style) -> (Scene, Frame) {
    let scene = Scene::still(7, index);
    let frame = scene.frame(style, SIZE, 0.0);
    (scene, frame)
}

fn film(seed: u64, index: u64, style: Style, frames: usize) -> (Scene, Clip) {
    let scene = Scene::draw(seed, index, Split::All);
    let clip = scene.render(style, SIZE, frames, 8.0);
    (scene, clip)
}

/// Gaussian noise of standard deviation `sigma` levels, and then the mean of each 3x3 neighbourhood.
fn spoilt(frame: &Frame, sigma: f64, seed: u64) -> Frame {
    let random = &mut choice::random(seed, 0);
    let mut gaussian = || (0..12).map(|_| choice::between(random, -0.5, 0.5)).sum::<f64>();
    let noisy: Vec<f64> = frame.rgb.iter().map(|level| f64::from(*level) + sigma * gaussian()).collect();
    let clamped = |at: usize, step: usize, last: usize| (at + step).saturating_sub(1).min(last);
    let smooth = |at: usize| {
        let (x, y, c) = (at / 3 % frame.width, at / 3 / frame.width, at % 3);
        let near = (0..9).map(|step| {
            let (x, y) = (clamped(x, step % 3, frame.width - 1), clamped(y, step / 3, frame.height - 1));
            noisy[3 * (y * frame.width + x) + c]
        });
        (near.sum::<f64>() / 9.0).round().clamp(0.0, 255.0) as u8
    };
    Frame { rgb: (0..noisy.len()).map(smooth).collect(), ..*frame }
}

fn share(count: usize, of: impl Fn(u64) -> bool) -> f64 {
    (0..count as u64).filter(|index| of(*index)).count() as f64 / count as f64
}

// The shape in a frame.

#[test]
fn shapes_and_colours_are_told_in_every_style_and_through_noise() {
    let right = |index: u64, style: Style, spoil: &dyn Fn(&Frame) -> Frame| {
        let (scene, frame) = picture(index, style);
        classify(&spoil(&frame), style).is_some_and(|found| (found.shape, found.colour) == (scene.shape, scene.colour))
    };
    let clean: &dyn Fn(&Frame) -> Frame = &|frame| frame.clone();
    let noisy: &dyn Fn(&Frame) -> Frame = &|frame| spoilt(frame, 10.0, 5);
    let cases = [
        (Style::Flat, clean, 0.995),
        (Style::Outlines, clean, 0.97),
        (Style::Night, clean, 0.97),
        (Style::Flat, noisy, 0.97),
        (Style::Outlines, noisy, 0.95),
        (Style::Night, noisy, 0.95),
    ];
    for (style, spoil, least) in cases {
        let rate = share(200, |index| right(index, style, spoil));
        assert!(rate >= least, "{style:?}: {rate}");
    }
    let veiled = share(60, |index| right(index, Style::Flat, &|frame| one_veiled(frame, shapes::STRENGTH)));
    assert!(veiled >= 0.95, "{veiled}");
}

fn one_veiled(frame: &Frame, strength: f64) -> Frame {
    veil(&Clip { frames: vec![frame.clone()], fps: 8.0 }, strength).frames.remove(0)
}

#[test]
fn places_and_sizes_are_measured_within_half_a_pixel_and_a_tenth() {
    for style in Style::ALL {
        for index in 0..60 {
            let (scene, frame) = picture(index, style);
            let Pose { x, y, radius } = scene.pose(0.0);
            let found = classify(&frame, style).unwrap();
            let error = (found.centroid.0 - x * SIDE as f64).hypot(found.centroid.1 - y * SIDE as f64);
            assert!(error < 0.5, "{style:?} {}: {error} pixels off", scene.caption());
            let ratio = found.radius / (radius * SIDE as f64);
            assert!((0.95..1.12).contains(&ratio), "{style:?} {}: {ratio} times as large", scene.caption());
            let hole = segment(&frame).unwrap().hole;
            assert_eq!(hole > 0.03, style == Style::Outlines, "{style:?} {}: hole {hole}", scene.caption());
        }
    }
}

#[test]
fn frames_without_a_shape_give_nothing() {
    for tone in [[222; 3], [128; 3], [36; 3], [246, 232, 205], [18, 21, 55]] {
        let plain = Frame::filled(SIDE, SIDE, tone);
        assert!(segment(&plain).is_none());
        assert!(segment(&spoilt(&plain, 10.0, 1)).is_none(), "noise is no shape");
        let dots = |spacing: usize, size: usize| {
            let mut frame = plain.clone();
            for y in (0..SIDE).filter(|y| y % spacing < size) {
                for x in (0..SIDE).filter(|x| x % spacing < size) {
                    frame.rgb[3 * (y * SIDE + x)..][..3].copy_from_slice(&[220, 40, 40]);
                }
            }
            frame
        };
        assert!(segment(&dots(64, 4)).is_none(), "too small");
        assert!(segment(&dots(16, 5)).is_none(), "shattered");
    }
}

// Motion.

/// The scene without its shape.
fn emptied(frame: &Frame) -> Frame {
    Frame::filled(frame.width, frame.height, [128; 3])
}

#[test]
fn tracks_follow_the_pose_and_name_the_motion() {
    for (style, clips, least) in [(Style::Flat, 60, 0.98), (Style::Outlines, 30, 0.96), (Style::Night, 30, 0.96)] {
        let right = share(clips, |index| {
            let (scene, clip) = film(3, index, style, 8);
            let found = track(&clip).unwrap();
            for (at, spot) in found.spots.iter().enumerate() {
                let pose = scene.pose(at as f64 / 7.0);
                let error = (spot.x - pose.x * SIDE as f64).hypot(spot.y - pose.y * SIDE as f64);
                assert!(error < 0.5, "{style:?} {}, frame {at}: {error} pixels off", scene.caption());
            }
            found.motion() == Some(scene.motion)
        });
        assert!(right >= least, "{style:?}: {right}");
        let veiled = share(20, |index| {
            let (scene, clip) = film(4, index, style, 8);
            track(&veil(&clip, shapes::STRENGTH)).and_then(|track| track.motion()) == Some(scene.motion)
        });
        assert!(veiled >= 0.95, "{style:?}, veiled: {veiled}");
    }
}

#[test]
fn independent_stills_are_no_motion() {
    let moving = share(60, |index| {
        let like = Scene::still(11, 100 * index);
        let still = |at| Scene { shape: like.shape, colour: like.colour, ..Scene::still(11, 100 * index + at) };
        let frames = (0..8).map(|at| still(at).frame(Style::Flat, SIZE, 0.0)).collect();
        track(&Clip { frames, fps: 8.0 }).and_then(|track| track.motion()).is_some()
    });
    assert!(moving < 0.02, "{moving}");
}

#[test]
fn missing_frames_are_filled_in_up_to_a_quarter() {
    let (scene, mut clip) = film(3, 0, Style::Flat, 8);
    for missing in [0, 4] {
        clip.frames[missing] = emptied(&clip.frames[missing]);
    }
    let found = track(&clip).unwrap();
    let whole = track(&scene.render(Style::Flat, SIZE, 8, 8.0)).unwrap();
    assert_eq!(found.spots[0], found.spots[1], "the nearest, where there is no other");
    assert!((found.spots[4].x - whole.spots[4].x).hypot(found.spots[4].y - whole.spots[4].y) < 0.3);
    assert_eq!(found.motion(), Some(scene.motion));
    clip.frames[6] = emptied(&clip.frames[6]);
    assert_eq!(track(&clip), None);
    assert_eq!(track(&Clip { frames: vec![], fps: 8.0 }), None);
}

#[test]
fn motions_keep_to_their_thresholds() {
    let line = |to: (f64, f64, f64), bend: f64| {
        let at = |time: f64, wiggle: f64| Spot {
            x: 30.0 + to.0 * time + bend * wiggle,
            y: 30.0 + to.1 * time,
            radius: 9.0 * to.2.powf(time),
        };
        let spots = (0..8).map(|frame| at(f64::from(frame) / 7.0, [0.0, 1.0, -1.0][frame as usize % 3])).collect();
        Track { spots, side: 64.0 }
    };
    let cases = [
        (line((9.0, 0.0, 1.0), 0.0), Some(Motion::Right)),
        (line((-9.0, 4.0, 1.0), 0.0), Some(Motion::Left)),
        (line((3.0, -20.0, 1.3), 0.0), Some(Motion::Up)),
        (line((0.0, 20.0, 0.9), 0.0), Some(Motion::Down)),
        (line((0.0, 0.0, 1.4), 0.0), Some(Motion::Growing)),
        (line((2.0, 2.0, 1.1), 0.5), Some(Motion::Still)),
        (line((6.5, 0.0, 1.0), 0.0), None),
        (line((9.0, 6.0, 1.0), 0.0), None),
        (line((9.0, 0.0, 1.5), 0.0), None),
        (line((7.0, 0.0, 1.5), 0.0), None),
        (line((0.0, 0.0, 0.7), 0.0), None),
        (line((0.0, 0.0, 1.0), 6.0), None),
        (line((9.0, 0.0, 1.0), 3.0), None),
    ];
    for (track, expected) in cases {
        assert_eq!(track.motion(), expected, "{track:?}");
        let twice = |spot: &Spot| Spot { x: 2.0 * spot.x, y: 2.0 * spot.y, radius: 2.0 * spot.radius };
        let larger = Track { spots: track.spots.iter().map(twice).collect(), side: 128.0 };
        assert_eq!(larger.motion(), expected, "thresholds grow with the picture");
    }
}

// Changes beyond motion.

#[test]
fn jumps_see_what_shakes_and_nothing_else() {
    let set = |change: &dyn Fn(usize, &mut Scene), spoil: &dyn Fn(usize, Frame) -> Frame| -> Vec<Jump> {
        let clip = |index: u64| {
            let frame = |at: usize| {
                let mut scene = Scene::draw(6, index, Split::All);
                change(at, &mut scene);
                spoil(at, scene.frame(Style::Flat, SIZE, at as f64 / 7.0))
            };
            jump(&Clip { frames: (0..8).map(frame).collect(), fps: 8.0 }).unwrap()
        };
        (0..12).map(clip).collect()
    };
    let even = set(&|_, _| (), &|_, frame| frame);
    assert_eq!(jump::ratio(&even, &even), Jump { place: 1.0, colour: 1.0, background: 1.0 });
    let shaken = set(
        &|at, scene| {
            let aside = 0.03 * [0.0, 1.0, -1.0][at % 3];
            scene.way.0.x += aside;
            scene.way.1.x += aside;
        },
        &|_, frame| frame,
    );
    let blinking = set(&|at, scene| scene.colour = at % 2, &|_, frame| frame);
    let flickering = set(&|_, _| (), &|at, mut frame| {
        for pixel in frame.rgb.as_chunks_mut::<3>().0.iter_mut().filter(|pixel| pixel[0] == pixel[1]) {
            *pixel = pixel.map(|level| level + 4 * (at % 2) as u8);
        }
        frame
    });
    let ratio = |these: &[Jump]| {
        let Jump { place, colour, background } = jump::ratio(these, &even);
        [place, colour, background].map(|ratio| ratio > 1.5)
    };
    assert_eq!(ratio(&shaken), [true, false, false], "{:?}", jump::ratio(&shaken, &even));
    assert_eq!(ratio(&blinking), [false, true, false], "{:?}", jump::ratio(&blinking, &even));
    assert_eq!(ratio(&flickering), [false, false, true], "{:?}", jump::ratio(&flickering, &even));
}

// The corpus's mark.

#[test]
fn watermarks_are_measured_by_their_strength() {
    const STRENGTHS: [f64; 5] = [0.0, 0.1, 0.25, 0.5, 0.75];
    for style in Style::ALL {
        let energies: Vec<[f64; 5]> = (0..16)
            .map(|index| {
                let (_, clip) = film(8, index, style, 4);
                STRENGTHS.map(|strength| match strength {
                    0.0 => watermark::energy(&clip.frames),
                    strength => watermark::energy(&veil(&clip, strength).frames),
                })
            })
            .collect();
        for energies in &energies {
            assert!(energies.is_sorted_by(|a, b| a < b), "{style:?}: {energies:?}");
            assert!(energies[0].abs() < 0.04, "{style:?}, clean: {}", energies[0]);
        }
        for (at, strength) in STRENGTHS.into_iter().enumerate() {
            let mean = energies.iter().map(|energies| energies[at]).sum::<f64>() / energies.len() as f64;
            assert!((mean - strength).abs() < 0.05, "{style:?}: {mean} for {strength}");
        }
    }
    assert_eq!(watermark::energy(&[]), 0.0);
}

// The camera.

const CAMERA: [augment::Motion; 8] = [
    augment::Motion::ZoomIn,
    augment::Motion::ZoomOut,
    augment::Motion::PanLeft,
    augment::Motion::PanRight,
    augment::Motion::TiltUp,
    augment::Motion::TiltDown,
    augment::Motion::RollClockwise,
    augment::Motion::RollAnticlockwise,
];

/// What [`Similarity::amount`] should be for a clip that was filmed from a square picture.
fn filmed_amount(motion: augment::Motion, extent: Extent, source: Size) -> f64 {
    let [from, to] = [0.0, 1.0].map(|time| augment::crop(motion, extent, source, SIZE, time));
    match motion {
        augment::Motion::ZoomIn | augment::Motion::ZoomOut => (from.width / to.width).ln().abs(),
        augment::Motion::RollClockwise | augment::Motion::RollAnticlockwise => extent.turn,
        _ => (from.x - to.x).hypot(from.y - to.y) * SIDE as f64 / from.width,
    }
}

#[test]
fn camera_moves_are_recognised_and_measured() {
    let source = Size::square(128);
    for (texture, least) in [(Texture::Checkered, 0.97), (Texture::Striped, 0.94), (Texture::Plain, 0.9)] {
        let (mut shown, mut measured, mut all) = (0, 0, 0);
        for (at, motion) in CAMERA.into_iter().enumerate() {
            for index in 0..5 {
                let scene = Scene { texture, ..Scene::still(5, index + 5 * at as u64) };
                let extent = Extent::draw(1, index);
                let still = scene.frame(Style::ALL[index as usize % 3], source, 0.0);
                let fit = camera::fit(&augment::film(&[still], motion, extent, SIZE, 8, 8.0));
                let ratio = fit.amount(motion) / filmed_amount(motion, extent, source);
                assert!(
                    !CAMERA.iter().any(|other| *other != motion && fit.shows(*other)) || texture != Texture::Checkered
                );
                shown += usize::from(fit.shows(motion));
                measured += usize::from((ratio - 1.0).abs() < 0.15);
                all += 1;
            }
        }
        let [shown, measured] = [shown, measured].map(|count| count as f64 / all as f64);
        assert!(shown >= least, "{texture:?}: {shown} recognised");
        // On a plain background, a shape that is cut off by the border leaves the amount open.
        assert!(measured >= least || texture == Texture::Plain, "{texture:?}: {measured} measured");
    }
}

#[test]
fn what_moves_for_itself_is_no_camera() {
    // Stripes do not tell of motion along them, where the shape is all that can be seen to move: 0.25 are misread. On chequers,
    // it is large shapes that grow.
    for (texture, most) in [(Texture::Striped, 0.26), (Texture::Checkered, 0.1)] {
        let misread = share(40, |index| {
            let scene = Scene { texture, ..Scene::draw(2, index, Split::All) };
            let fit = camera::fit(&scene.render(Style::Flat, SIZE, 8, 8.0));
            CAMERA.iter().any(|motion| fit.shows(*motion))
        });
        assert!(misread < most, "{texture:?}: {misread}");
    }
}

#[test]
fn camera_motions_keep_to_their_thresholds() {
    let shown = |scale: f64, degrees: f64, dx: f64, dy: f64, side: f64| -> Vec<augment::Motion> {
        let fit = Similarity { scale, angle: degrees.to_radians(), dx, dy, side };
        CAMERA.into_iter().filter(|motion| fit.shows(*motion)).collect()
    };
    use augment::Motion::*;
    assert_eq!(shown(1.2, 3.0, 2.0, -2.0, 64.0), [ZoomIn]);
    assert_eq!(shown(0.8, 0.0, 0.0, 0.0, 64.0), [ZoomOut]);
    assert_eq!(shown(1.0, 0.0, 6.0, 0.0, 64.0), [PanLeft], "the camera goes left, its picture right");
    assert_eq!(shown(1.1, 8.0, -6.0, 4.0, 64.0), [PanRight]);
    assert_eq!(shown(1.0, 0.0, 0.0, 6.0, 64.0), [TiltUp]);
    assert_eq!(shown(1.0, 0.0, 0.0, -6.0, 64.0), [TiltDown]);
    assert_eq!(shown(1.0, -12.0, 0.0, 0.0, 64.0), [RollClockwise]);
    assert_eq!(shown(1.0, 12.0, 0.0, 0.0, 64.0), [RollAnticlockwise]);
    assert_eq!(shown(1.14, 9.0, 4.0, 4.0, 64.0), [], "too little of each");
    assert_eq!(shown(1.0, 0.0, 6.0, 0.0, 128.0), [], "shifts count by the picture's size");
    assert_eq!(shown(1.6, 0.0, 40.0, 0.0, 64.0), [PanLeft], "others may be half as strong");
    for (scale, degrees, dx, dy) in [(1.0, 0.0, 7.0, 7.0), (1.2, 12.0, 0.0, 0.0), (0.8, 0.0, 0.0, 6.0)] {
        assert_eq!(shown(scale, degrees, dx, dy, 64.0), [], "none stands out");
    }
    let tiny = Clip { frames: vec![Frame::filled(3, 2, [9; 3]); 2], fps: 8.0 };
    assert_eq!((camera::fit(&tiny).scale, camera::fit(&tiny).side), (1.0, 2.0));
    let still = camera::fit(&Clip { frames: vec![Frame::filled(SIDE, SIDE, [9; 3]); 3], fps: 8.0 });
    assert_eq!(still, Similarity { scale: 1.0, angle: 0.0, dx: 0.0, dy: 0.0, side: SIDE as f64 });
}

// Styles.

#[test]
fn styles_are_apart_and_sets_of_one_style_are_not() {
    let set =
        |style: Style, first: u64| -> Vec<Frame> { (first..first + 40).map(|index| picture(index, style).1).collect() };
    let sets = Style::ALL.map(|style| (set(style, 0), set(style, 100)));
    for (one, (these, others)) in sets.iter().enumerate() {
        let same = style::distance(these, others) / style::spread(others);
        assert!((0.9..1.1).contains(&same), "{:?}: {same}", Style::ALL[one]);
        for (other, (those, _)) in sets.iter().enumerate().filter(|(other, _)| *other != one) {
            let apart = style::distance(these, those) / style::spread(those);
            assert!(apart > 1.6, "{:?} and {:?}: {apart}", Style::ALL[one], Style::ALL[other]);
        }
    }
}
