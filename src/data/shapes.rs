//! A world small enough to learn on a laptop: coloured shapes that move, each with the words that say so.
//!
//! It has the two domains that AnimateDiff is about. *Stills* are clean pictures, seen from near and far, whose captions know
//! no motion: what a text-to-image base learns from. *Video* is the same content seen through a [`veil()`], as a corpus of
//! stock footage is: a watermark, softness, compression; its captions say how things move. A part of the combinations of
//! shape, colour and motion is [held out](Scene::held_out) of video, so that what is learned can be told from what is remembered. *Vistas* are
//! pictures from afar that a camera is moved over, for a MotionLoRA.
//!
//! Lengths are shares of the picture: x of its width, y of its height, radii of its shorter side.

mod render;
mod scene;
mod set;
mod veil;

pub use render::Style;
pub use scene::{COLOURS, Ground, Motion, Pose, Scene, Shape, Split, TONES, Texture, words};
pub use set::{Domain, Set};
pub use veil::{STRENGTH, veil, watermark};
